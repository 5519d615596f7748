"""A real nginx for tests, with whatever servers a test writes, everything of it in one folder and one process."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.eventually import eventually

_MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


class Nginx:
    """One nginx that runs while the context does; `ports` are those that its servers listen on.

    Skips the test where this machine has no nginx.
    """

    def __init__(self, folder: Path, servers: str, *ports: int) -> None:
        self.folder = folder
        self._ports = ports
        self._program = _program()
        self._settings = folder / "nginx.conf"
        self._settings.write_text(_MAIN.format(folder=folder, servers=servers))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        errors = self.folder / "error.log"
        self._process = subprocess.Popen([self._program, "-p", self.folder, "-e", errors, "-c", self._settings])
        process = self._process
        eventually(lambda: process.poll() is not None or all(map(_listens, self._ports)), "nginx to start")
        if process.poll() is not None:
            raise RuntimeError(f"nginx did not start: {errors.read_text() if errors.exists() else 'no log'}")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def logged(self, name: str = "access.log") -> str:
        return (self.folder / name).read_text(errors="replace")


def _program() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("there is no nginx on this machine: apt install nginx-light")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
