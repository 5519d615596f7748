"""What a compromised detector process can reach, tried from inside a real one."""

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.sandbox import policy
from app.errors import DetectionsError
from app.runs.detector_process import DetectorProcess, Job, OpenFile
from app.settings import DetectorOptions, SandboxMode
from tests.detection import taken_over

HOOK = """
import sys
from taken_over import take_over
sys.path.remove({folder!r})
del sys.modules["av"]
import av
av.open = lambda file, *_args, **_options: take_over({paths!r}, file.fileno())
"""

NOT_EVERYWHERE = {"environment", "UDP", "IPv6", "32 bit numbers"}
"""What a machine or a test's user may lack even so."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not policy.available(DetectorOptions()).is_complete, reason="this kernel offers no Landlock or no seccomp"
    ),
]


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Files and folders of a service that an attacker would want."""
    for name in ("database", "media", "doomed", "moving"):
        (tmp_path / name).write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        found = {name: str(tmp_path / name) for name in ("database", "media", "doomed", "moving", "new", "socket")}
        yield found | {"port": str(server.getsockname()[1]), "address": str(id(found))}


def succeeded(mode: SandboxMode, paths: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the attempts that succeed in a detector process whose video decoder is replaced."""
    package = folder / "hooks" / "av"
    package.mkdir(parents=True)
    shutil.copy(taken_over.__file__, folder / "hooks")
    paths = paths | {"seals": "" if mode == "off" else "yes"}
    (package / "__init__.py").write_text(HOOK.format(folder=str(folder / "hooks"), paths=paths))
    sys_path = [str(folder / "hooks"), *sys.path]
    monkeypatch.setattr(sys, "path", sys_path)
    monkeypatch.setenv("JWT_SECRET_KEY", "k" * 40)
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://user:password@host/database")
    with closing(DetectorProcess(BUILT_IN_MODEL, options=DetectorOptions(sandbox=mode))) as process:
        with pytest.raises(DetectionsError) as raised, Path(paths["media"]).open("rb") as media:
            list(process.run(Job(OpenFile(media.fileno()), "Video")))
        sys_path.pop(0)
    names: list[str] = json.loads(str(raised.value))
    return names


def test_whoever_takes_a_decoder_over_reaches_nothing(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(tmp_path.iterdir())
    assert succeeded("required", paths, tmp_path, monkeypatch) == []
    assert set(tmp_path.iterdir()) - before == {tmp_path / "hooks"}
    assert {Path(paths[name]).read_text() for name in ("database", "media", "doomed", "moving")} == {"secret"}


def test_without_the_sandbox_all_of_it_is_reached(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the sandbox refuses the attempts above, except for the environment, which is always new."""
    worked = set(succeeded("off", paths, tmp_path, monkeypatch))
    assert "environment" not in worked
    everything = set(taken_over.attempts(paths | {"seals": ""}, 0, 0))
    assert everything - worked <= NOT_EVERYWHERE, everything - worked
