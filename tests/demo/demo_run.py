"""The demo as a process: run to its end or interrupted, and what it has left behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.eventually import eventually
from tests.paths import ROOT

# None of these may reach what the demo starts: each would make it fail, or send it elsewhere.
MISLEADING = {
    "ANNOTATIONS_TOKEN": "a token that nobody accepts",
    "ANNOTATIONS_URL": "http://127.0.0.1:9",
    "DATABASE_URL": "sqlite:////nowhere/at/all.db",
    "DETECTOR_MODEL": "/nowhere/at/all.onnx",
    "DISPATCHER": "off",
    "FLASK_APP": "nowhere",
    "GUNICORN_CMD_ARGS": "--bind 256.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "IMAGES_DIR": "/nowhere/at/all",
    "JWT_AUDIENCE": "somebody else",
    "JWT_JWKS_URL": "http://127.0.0.1:9/keys",
    "MAX_UPLOAD_BYTES": "1",
}


@dataclass(frozen=True)
class Run:
    """A demo that has ended, and the folder that was its place for temporary files."""

    exit_code: int
    output: str
    messages: str
    scratch: Path
    picture: Path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.demo", *map(str, arguments)]


def surroundings(scratch: Path) -> dict[str, str]:
    scratch.mkdir(exist_ok=True)
    return os.environ | MISLEADING | {"TMPDIR": str(scratch)}


def run_demo(folder: Path, *arguments: str | Path) -> Run:
    scratch, picture = folder / "scratch", folder / "pictures" / "boxes.png"
    done = subprocess.run(
        command("--out", picture, *arguments),
        cwd=ROOT,
        env=surroundings(scratch),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, scratch, picture)


@contextmanager
def started(scratch: Path, until: str) -> Iterator[subprocess.Popen[str]]:
    """A demo under way that has just told of `until`; at the end of the block it is waited for."""
    with subprocess.Popen(
        command("--out", scratch.parent / "boxes.png"),
        cwd=ROOT,
        env=surroundings(scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout
        assert any(until in line for line in demo.stdout)
        yield demo


def processes_of(scratch: Path, argument: str = "") -> list[int]:
    """The living processes that were started with `scratch` as their TMPDIR and with this argument, if given."""
    setting = f"TMPDIR={scratch}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = setting in (process / "environ").read_bytes().split(b"\0")
            if ours and argument in [*(process / "cmdline").read_text().split("\0"), ""]:
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def assert_nothing_left(scratch: Path) -> None:
    eventually(lambda: processes_of(scratch) == [], "every process to end", seconds=10)
    assert list(scratch.iterdir()) == []
