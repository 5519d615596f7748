"""The servers of benchmarks.ingest: ours and its peers, each with one process that serves, started and stopped here."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config

from benchmarks.peers import environment
from tests.paths import ROOT
from tests.servers.ports import free_port
from tests.system.service import Service, token

START_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A running server: `curl` gives curl's arguments for one file, `group` is its process group."""

    name: str
    url: str
    group: int
    folder: Path
    curl: Callable[[Path], list[str]]


@contextmanager
def ours(folder: Path, workers: int = 1, wrapper: tuple[str, ...] = ()) -> Iterator[Service]:
    """The service as it is deployed, with nobody to deliver to; `wrapper` is put before its command."""
    folder.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{folder / 'detections.db'}"
    _migrate(database)
    service = Service(folder, database, None, DISPATCHER="off")
    try:
        yield service.start("--workers", str(workers), wrapper=wrapper)
    finally:
        service.stop(signal.SIGTERM)


def _migrate(database: str) -> None:
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("sqlalchemy.url", database)
    command.upgrade(config, "head")


def views(service: Service) -> list[Server]:
    """The two framings of our upload."""
    assert service.process is not None
    url, bearer = f"{service.url}/media", ["-H", f"Authorization: Bearer {token()}"]

    def raw(file: Path) -> list[str]:
        return [*bearer, "-X", "POST", "-H", "Content-Type: video/mp4", "-T", str(file), f"{url}?name=video.mp4"]

    def form(file: Path) -> list[str]:
        return [*bearer, *_form(file), url]

    return [
        Server("ours, raw body", url, service.process.pid, service.videos, raw),
        Server("ours, form", url, service.process.pid, service.videos, form),
    ]


@contextmanager
def bare_socket(folder: Path, *options: str) -> Iterator[list[Server]]:
    """recv and write, and nothing else but its options. A form is written as it comes: what is slower then is the
    client."""
    words = [sys.executable, "-m", "benchmarks.peers.bare_socket", str(folder), *options]
    name = " ".join(["bare socket", *(f"with {option.removeprefix('--')}" for option in options)])
    folder.mkdir(parents=True, exist_ok=True)
    with _running(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/"
        yield [
            Server(f"{name}, raw body", url, process.pid, folder, lambda file: ["-T", str(file), url]),
            Server(f"{name}, form", url, process.pid, folder, lambda file: [*_form(file), url]),
        ]


@contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """nginx with its WebDAV module, which writes the body beside its destination and renames it."""
    executable = shutil.which("nginx") or "/usr/sbin/nginx"
    (folder / "files").mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        events {{ }}
        http {{
            access_log off; client_max_body_size 0; client_body_temp_path {folder}/files/temp;
            client_body_buffer_size 1m;
            server {{ listen 127.0.0.1:{port}; location / {{ root {folder}/files; dav_methods PUT; }} }}
        }}
    """
    configuration = folder / "nginx.conf"
    configuration.write_text(settings)
    with _running([executable, "-e", f"{folder}/error.log", "-c", str(configuration)]) as process:
        _await(port)
        url = f"http://127.0.0.1:{port}/video.mp4"
        yield Server("nginx WebDAV", url, process.pid, folder / "files", lambda file: ["-T", str(file), url])


@contextmanager
def fastapi(folder: Path) -> Iterator[Server]:
    """FastAPI's UploadFile under uvicorn; its temporary files lie on the same disk."""
    words = [str(environment.python()), "-m", "uvicorn", "benchmarks.peers.fastapi_app:app", "--log-level", "error"]
    with _form_server("FastAPI UploadFile", words, "--port", folder) as server:
        yield server


@contextmanager
def flask(folder: Path) -> Iterator[Server]:
    """Flask's request.files under gunicorn's threads."""
    # A configuration of its own, or it would take gunicorn.conf.py.
    words = [sys.executable, "-m", "gunicorn", "-c", "python:benchmarks.peers", "--threads", "16"]
    words += ["--log-level", "error"]
    with _form_server("Flask request.files", [*words, "benchmarks.peers.flask_app:app"], "-b", folder) as server:
        yield server


@contextmanager
def resumable(folder: Path) -> Iterator[Server]:
    """The tus server resumable-upload under gunicorn's threads."""
    words = [str(environment.python()), "-m", "gunicorn", "-c", "python:benchmarks.peers", "--threads", "16"]
    words += ["--log-level", "error"]
    with _form_server("resumable-upload", [*words, "benchmarks.peers.resumable_app:app"], "-b", folder) as server:
        yield server


def _form(file: Path) -> list[str]:
    return ["-F", f"file=@{file};filename=video.mp4"]


@contextmanager
def _form_server(name: str, command: list[str], option: str, folder: Path) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = str(port) if option == "--port" else f"127.0.0.1:{port}"
    with _running([*command, option, address], env=os.environ | {"FOLDER": str(folder), "TMPDIR": str(folder)}) as it:
        _await(port)
        url = f"http://127.0.0.1:{port}/upload"
        yield Server(name, url, it.pid, folder, lambda file: [*_form(file), url])


@contextmanager
def _running(
    command: list[str], *, stdout: int | None = None, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, env=env, text=True, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server at port {port} after {START_SECONDS} s")
