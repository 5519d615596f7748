"""Everything that a demo runs: settings, processes and ports, in one folder; what was begun here, `close` ends.

The children's environment is made from nothing: of the caller's, only what any program needs, no setting of ours,
of gunicorn's or of Flask's, and no proxy.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.demo.client import admin_token, answers, user_token
from app.demo.failure import StepFailed
from app.demo.folder import DemoFolder
from app.demo.interruptions import Interruptions
from app.demo.process import HOST, HeldPort, Process

_SURROUNDINGS = ("PATH", "HOME", "LANG", "LANGUAGE", "TERM", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
_SURROUNDINGS_BEGIN = ("LC_", "COVERAGE_")
_START_SECONDS = 30.0
_COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code, what it printed, and the process that it was."""

    exit_code: int | None
    output: str
    process: Process


class Stage:
    """The service and the reference annotations service, each on a port of its own, with one random secret."""

    def __init__(self, folder: DemoFolder, interruptions: Interruptions, model: Path | None = None) -> None:
        self._folder = folder
        self._interruptions = interruptions
        self._processes: list[Process] = []
        self._service_port, self._annotations_port = HeldPort(), HeldPort()
        self._secret = secrets.token_urlsafe(32)
        self._service: Process | None = None
        self._annotations: Process | None = None
        self._settings = {
            "DATABASE_URL": f"sqlite:///{folder.path / 'detections.db'}",
            "IMAGES_DIR": str(folder.path / "images"),
            "VIDEOS_DIR": str(folder.path / "videos"),
            "ANNOTATIONS_URL": self.annotations_url,
            "JWT_SECRET_KEY": self._secret,
            "DETECTION_WORKERS": "1",
        }
        if model is not None:
            self._settings["DETECTOR_MODEL"] = str(model)

    @property
    def service_url(self) -> str:
        return self._service_port.url

    @property
    def annotations_url(self) -> str:
        return self._annotations_port.url

    def token(self) -> str:
        """A user's token."""
        return user_token(self._secret)

    def admin_token(self) -> str:
        """An administrator's token."""
        return admin_token(self._secret)

    def servers(self) -> list[Process]:
        """The service and the annotations service, those of them that were started and not ended."""
        return [server for server in (self._service, self._annotations) if server is not None]

    def images(self) -> list[Path]:
        """The files in IMAGES_DIR, by name."""
        return sorted(path for path in (self._folder.path / "images").iterdir() if path.is_file())

    def migrate(self) -> None:
        """Bring the database to the newest revision. Raises StepFailed."""
        done = self._run("alembic", "-m", "alembic", "upgrade", "head")
        if done.exit_code != 0:
            raise StepFailed(f"alembic ended with exit code {done.exit_code}", done.process)

    def start_annotations(self) -> None:
        """Start the reference annotations service, also again, on the same port and with the same data."""
        self._annotations = self._launch(
            "annotations", self.annotations_arguments(), {"ANNOTATIONS_SECRET": self._secret}
        )
        self._await(self._annotations, f"{self.annotations_url}/_log")

    def annotations_arguments(self) -> list[str]:
        """What Python is given to start it; the environment has the secret."""
        database, port = str(self._folder.path / "annotations.db"), str(self._annotations_port.number)
        return ["-m", "app.demo.annotations", "--database", database, "--port", port]

    def stop_annotations(self) -> None:
        """End it; connections to its port are refused from now on, until it is started again."""
        if self._annotations is not None:
            with self._interruptions.held():
                self._annotations.stop()
            self._annotations = None

    def start_service(self) -> None:
        """Start the service under gunicorn, as bin/serve does."""
        bind = f"{HOST}:{self._service_port.number}"
        self._service = self._launch(
            "service", ["-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", bind, "wsgi:app"], self._settings
        )
        self._await(self._service, f"{self.service_url}/readyz")

    def flask(self, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> Outcome:
        """Run `flask …` with the service's settings, calling `meanwhile` every few milliseconds until it has ended.

        Raises StepFailed where it takes more than a minute.
        """
        return self._run("flask", "-m", "flask", *arguments, meanwhile=meanwhile)

    def concerned(self, failed: Process | None) -> list[Process]:
        """The processes whose logs may tell why a step failed: that one, servers that died, or else the service."""
        named = [] if failed is None else [failed]
        dead = [server for server in self.servers() if server.has_ended and server is not failed]
        return [*named, *dead] or [server for server in [self._service] if server is not None]

    def leave_running(self) -> list[int]:
        """Let everything go on without this process; returns the ids of the processes to end one day."""
        processes = [server.pid for server in self.servers()]
        self._folder.keep_settings(self._settings)
        self._folder.note(processes)
        self._folder.leave()
        self._close_ports()
        return processes

    def close(self) -> None:
        """End every process."""
        for process in reversed(self._processes):
            process.stop()
        self._close_ports()

    def _run(self, name: str, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> Outcome:
        output = self._folder.path / f"{name}.out"
        process = self._launch(name, arguments, self._settings, output)
        deadline = time.monotonic() + _COMMAND_SECONDS
        while not process.has_ended:
            if time.monotonic() > deadline:
                raise StepFailed(f"{name} did not end within {_COMMAND_SECONDS:g} s", process)
            meanwhile()
            time.sleep(_POLL_SECONDS)
        return Outcome(process.exit_code, output.read_text(), process)

    def _launch(
        self, name: str, arguments: Iterable[str], settings: Mapping[str, str], output: Path | None = None
    ) -> Process:
        with self._interruptions.held():
            process = Process(
                name,
                [sys.executable, *arguments],
                {**_surroundings(), **settings},
                self._folder.path / f"{name}.log",
                output=output,
                keep_open=[] if self._folder.lock is None else [self._folder.lock],
            )
            self._processes.append(process)
        return process

    def _await(self, server: Process, address: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(address):
            if server.has_ended:
                raise StepFailed(f"{server.name} ended with exit code {server.exit_code}", server)
            if time.monotonic() > deadline:
                raise StepFailed(f"{server.name} did not answer within {_START_SECONDS:g} s", server)
            time.sleep(_POLL_SECONDS)

    def _close_ports(self) -> None:
        self._service_port.close()
        self._annotations_port.close()


def _surroundings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _SURROUNDINGS or name.startswith(_SURROUNDINGS_BEGIN)
    }
