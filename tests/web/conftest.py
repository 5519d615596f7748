"""A real gunicorn for the tests in this folder, with the project's gunicorn.conf.py and short timeouts."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests import fork_server
from tests.eventually import eventually
from tests.paths import ROOT
from tests.web.raw_client import RawClient

ONE_WORKER = {"WEB_CONCURRENCY": "1"}
IMPATIENCE = {"ECHO_IDLE_SECONDS": "1", "ECHO_GRACE_SECONDS": "2", "ECHO_MAX_BYTES": str(4 << 20)}


class Server:
    """A gunicorn with one worker on a free port."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = self._start(output, arguments)
        self.port = int(self._await(r"Listening at: \w+://127\.0\.0\.1:(\d+)"))
        self._await("(services started)")

    def _start(self, output: BinaryIO, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", *arguments]
        command += ["-k", "tests.web.upload.echo_upload.ImpatientWorker", "tests.web.upload.echo_upload:create_app()"]
        return fork_server.Popen(command, cwd=ROOT, env={**os.environ, **ONE_WORKER, **IMPATIENCE}, stderr=output)

    def _await(self, pattern: str) -> str:
        try:
            return eventually(lambda: re.search(pattern, self.log()), f"gunicorn to say {pattern}")[1]
        except AssertionError:
            self.stop()
            raise

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def connect(self) -> RawClient:
        return RawClient(socket.create_connection(("127.0.0.1", self.port), timeout=20))

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        self.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("gunicorn") / "log")
    yield running
    running.stop()
