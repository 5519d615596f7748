"""Everything that a demo runs: settings, processes and ports, in one folder; what was begun here, `close` ends.

The children's environment is made from nothing: of the caller's, only what any program needs, no setting of ours,
of gunicorn's or of Flask's, and no proxy.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.demo.client import answers, user_token
from app.demo.folder import DemoFolder
from app.demo.interruptions import Interruptions
from app.demo.process import HOST, POLL_SECONDS, HeldPort, Process, StepFailed

_SURROUNDINGS = ("PATH", "HOME", "LANG", "LANGUAGE", "TERM", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
_SURROUNDINGS_BEGIN = ("LC_", "COVERAGE_")
_START_SECONDS = 30.0
_COMMAND_SECONDS = 60.0


class Environment:
    """The service and the reference annotations service, each on a port of its own, with one random secret."""

    def __init__(self, folder: DemoFolder, interruptions: Interruptions, model: Path | None = None) -> None:
        self._folder = folder
        self._interruptions = interruptions
        self._started: list[Process] = []
        self._servers: dict[str, Process] = {}
        self._service_port, self._annotations_port = HeldPort(), HeldPort()
        self.service_url, self.annotations_url = self._service_port.url, self._annotations_port.url
        self._secret = secrets.token_urlsafe(32)
        self._settings = {
            "DATABASE_URL": f"sqlite:///{folder.path / 'detections.db'}",
            "IMAGES_DIR": str(folder.path / "images"),
            "VIDEOS_DIR": str(folder.path / "videos"),
            "ANNOTATIONS_URL": self.annotations_url,
            "JWT_SECRET_KEY": self._secret,
            "DETECTION_WORKERS": "1",
        } | ({} if model is None else {"DETECTOR_MODEL": str(model)})

    @property
    def folder(self) -> Path:
        return self._folder.path

    def token(self, *, is_admin: bool = False) -> str:
        """A user's token, or an administrator's."""
        return user_token(self._secret, is_admin=is_admin)

    def images(self) -> list[Path]:
        """The files in IMAGES_DIR, by name."""
        return sorted(path for path in (self.folder / "images").iterdir() if path.is_file())

    def migrate(self) -> None:
        """Bring the database to the newest revision. Raises StepFailed."""
        self._run("alembic", "-m", "alembic", "upgrade", "head")

    def start_annotations(self) -> None:
        """Start the reference annotations service, also again, on the same port and with the same data."""
        secret = {"ANNOTATIONS_SECRET": self._secret}
        self._serve("annotations", self.annotations_arguments(), secret, f"{self.annotations_url}/_log")

    def annotations_arguments(self) -> list[str]:
        """What Python is given to start it; the environment has the secret."""
        database, port = str(self.folder / "annotations.db"), str(self._annotations_port.number)
        return ["-m", "app.demo.annotations", "--database", database, "--port", port]

    def stop_annotations(self) -> None:
        """End it; connections to its port are refused from now on, until it is started again."""
        with self._interruptions.held():
            self._servers.pop("annotations").stop()

    def start_service(self) -> None:
        """Start the service under gunicorn, as bin/serve does; also again, on the same port."""
        bind = f"{HOST}:{self._service_port.number}"
        command = ["-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", bind, "wsgi:app"]
        self._serve("service", command, self._settings, f"{self.service_url}/readyz")

    def kill_service(self) -> None:
        """End it and its processes by SIGKILL."""
        with self._interruptions.held():
            self._servers.pop("service").kill()

    def flask(self, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Run `flask …` with the service's settings, calling `meanwhile` every few milliseconds until it has ended;
        returns what it printed. Raises StepFailed where it fails, or takes more than a minute."""
        return self._run("flask", "-m", "flask", *arguments, meanwhile=meanwhile)

    def concerned(self, failed: Process | None) -> list[Process]:
        """The processes whose logs may tell why a step failed: that one, servers that died, or else the service."""
        dead = [server for server in self._servers.values() if server.exit_code is not None and server is not failed]
        named = dead if failed is None else [failed, *dead]
        return named or [server for name, server in self._servers.items() if name == "service"]

    def leave_running(self) -> list[int]:
        """Let everything go on without this process; returns the ids of the processes to end one day."""
        processes = [self._servers[name].pid for name in ("service", "annotations")]
        self._folder.leave(self._settings, processes)
        self._close_ports()
        return processes

    def close(self) -> None:
        """End every process."""
        for process in reversed(self._started):
            process.stop()
        self._close_ports()

    def _serve(self, name: str, arguments: Sequence[str], settings: Mapping[str, str], address: str) -> None:
        server = self._servers[name] = self._launch(name, arguments, settings)
        self._wait(name, server, _START_SECONDS, lambda: answers(address))

    def _run(self, name: str, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> str:
        output = self.folder / f"{name}.out"
        output.unlink(missing_ok=True)
        process = self._launch(name, arguments, self._settings, output)

        def has_ended() -> bool:
            meanwhile()
            return process.exit_code == 0

        self._wait(name, process, _COMMAND_SECONDS, has_ended)
        return output.read_text()

    def _launch(
        self, name: str, arguments: Sequence[str], settings: Mapping[str, str], output: Path | None = None
    ) -> Process:
        surroundings = {
            name: value for name, value in os.environ.items()
            if name in _SURROUNDINGS or name.startswith(_SURROUNDINGS_BEGIN)
        }  # fmt: skip
        with self._interruptions.held():
            process = Process(
                [sys.executable, *arguments],
                {**surroundings, **settings},
                self.folder / f"{name}.log",
                output=output,
                keep_open=self._folder.lock,
            )
            self._started.append(process)
        return process

    def _wait(self, name: str, process: Process, seconds: float, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not is_done():
            if process.exit_code:
                raise StepFailed(f"{name} ended with exit code {process.exit_code}", process)
            if time.monotonic() > deadline:
                raise StepFailed(f"{name} took more than {seconds:g} s", process)
            time.sleep(POLL_SECONDS)

    def _close_ports(self) -> None:
        self._service_port.close()
        self._annotations_port.close()
