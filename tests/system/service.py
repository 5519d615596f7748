"""The service as people run it, for tests over real HTTP: gunicorn as a process, a database, folders, tokens."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import requests

from tests import fork_server
from tests.eventually import eventually
from tests.paths import ROOT

SECRET = "the secret that the tests share with the suite"
START_SECONDS = 30


def token(user: str = "ada", **claims: Any) -> str:
    """A client's token, as the suite's issuer makes it."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + 3600} | claims, SECRET)


class Service:
    """One gunicorn on a free port; `start` and `kill` as often as wanted, with what was stored kept."""

    def __init__(self, folder: Path, database_url: str, annotations_url: str | None, **settings: str) -> None:
        self.folder = folder
        self.images, self.videos = folder / "images", folder / "videos"
        self.environment = {
            "JWT_SECRET_KEY": SECRET,
            "DATABASE_URL": database_url,
            "IMAGES_DIR": str(self.images),
            "VIDEOS_DIR": str(self.videos),
            "DETECTION_WORKERS": "1",
            "WEB_CONCURRENCY": "1",  # what is counted in one process can be foretold
        } | settings
        if annotations_url:
            self.environment["ANNOTATIONS_URL"] = annotations_url
        self.log = folder / "gunicorn.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token: Callable[[str], str] = token

    def start(self, *arguments: str, wrapper: tuple[str, ...] = ()) -> "Service":
        """Start it, in a process group of its own, and wait until it answers; `wrapper` is put before the command."""
        before = self.log.stat().st_size if self.log.exists() else 0
        command = [*wrapper, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0"]
        with self.log.open("ab") as log:
            self.process = fork_server.Popen(
                [*command, *arguments, "wsgi:app"],
                cwd=ROOT,
                env=surroundings() | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_answer(before)
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it in the orderly way, and wait for that."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def kill(self) -> None:
        """End it, its workers and its detectors as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def workers(self) -> set[int]:
        """Its server processes, which are forks of the master; a process in which it tries a reload is none of them."""
        assert self.process is not None
        master = Path(f"/proc/{self.process.pid}")
        children = (master / f"task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if _command(Path(f"/proc/{pid}")) == _command(master)}

    def request(self, method: str, path: str, user: str = "ada", **options: Any) -> requests.Response:
        """One request with a valid token."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} | options.pop("headers", {})
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, headers=headers, timeout=90, **options)

    def upload(self, path: str, file: Path | bytes, name: str = "", **options: Any) -> requests.Response:
        """POST a file as a form."""
        content = file if isinstance(file, bytes) else file.read_bytes()
        name = name or (file.name if isinstance(file, Path) else "upload.jpg")
        return self.request("POST", path, files={"file": (name, content)}, **options)

    def detected(self, file: Path) -> str:
        """The id of a media with a finished run, however long that took."""
        answer = self.upload("/detect", file)
        assert answer.status_code in (200, 201, 202), answer.text
        media: dict[str, Any] = answer.json()["media"]
        if media["run"]["state"] != "done":
            eventually(lambda: self.request("GET", f"/media/{media['id']}").json()["run"]["state"] == "done", "the run")
        return str(media["id"])

    def outbox(self) -> dict[str, Any]:
        """What the service tells an administrator of its outbox."""
        administrator = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}
        found: dict[str, Any] = self.request("GET", "/outbox", headers=administrator).json()
        return found

    def flask(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run an admin command with this service's settings."""
        command = [sys.executable, "-m", "flask", *arguments]
        return fork_server.run(command, env=surroundings() | self.environment, timeout=timeout)

    def stored(self) -> set[str]:
        """The names of all published files."""
        return {path.name for folder in (self.images, self.videos) for path in folder.iterdir() if path.is_file()}

    def leftovers(self) -> list[Path]:
        """What lies in the folders for files on their way in."""
        return [path for folder in (self.images, self.videos) for path in (folder / ".incoming").iterdir()]

    def _await_answer(self, before: int) -> None:
        def answers_or_has_ended() -> bool:
            log = self.log.read_bytes()[before:].decode(errors="replace")
            found = re.search(r"Listening at: http://(127\.0\.0\.1:\d+)", log)
            answers = found is not None and self._answers(f"http://{found[1]}")
            return answers or self.process is None or self.process.poll() is not None

        eventually(answers_or_has_ended, "the service to start", seconds=START_SECONDS)
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"the service did not start:\n{self.log.read_text(errors='replace')}")

    def _answers(self, url: str) -> bool:
        self.url = url
        try:
            return self.request("GET", "/healthz").ok
        except requests.ConnectionError:
            return False


@contextmanager
def shared_service(folder: Path, template: Path, **settings: str) -> Iterator[Service]:
    """A service without an annotations service, on a copy of a migrated SQLite database: for all tests of a file, each
    with files of its own."""
    (folder / "detections.db").write_bytes(template.read_bytes())
    service = Service(folder, f"sqlite:///{folder / 'detections.db'}", None, **settings)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def surroundings() -> dict[str, str]:
    """This process's environment without settings of the service."""
    ours = ("ANNOTATIONS_", "JWT_", "DETECT", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _command(process: Path) -> bytes:
    """How a process was started; empty for one that has ended."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
