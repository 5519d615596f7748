"""Python programs without the time that their imports take: forked from a process that has imported the packages.

Four fifths of a start of the service are imports of other people's packages, and the tests start it some hundred times.
`Popen` and `run` are used as those of `subprocess`, and are these for anything but `python -m MODULE …`. What the
service imports at a start has been imported once. Each process imports anew only prometheus_client, which decides at
its import how it counts, and what rests on it; and in another folder than the checkout the whole application. A program
that ends in the orderly way ends without taking its modules apart, which costs as much as its start. A test of what a
start itself imports, costs or leaves uses `subprocess`.

The processes are children of the caller and not of the fork server, so that their ends are waited for as usual.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import io
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, AnyStr

from tests.paths import ROOT

_PACKAGES = (
    "alembic.command",
    "alembic.config",
    "flask.cli",
    "flask_jwt_extended",
    "flask_swagger_ui",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "itsdangerous",
    "psycopg",
    "requests",
    "rich.console",
    "rich.progress",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "structlog",
    "tenacity",
    "xxhash",
)
_APPLICATION = ("app", "app.web.server.gunicorn_hooks", "app.web.server.gunicorn_worker", "app.web.server.gunicorn_log")
_DECIDES_AT_ITS_IMPORT = "prometheus_client"
_CLONE_PARENT = 0x8000
_CLONE_NUMBER = {"x86_64": 56, "aarch64": 220}.get(platform.machine())
_MAX_REQUEST = 1 << 20
_STREAMS = ("stdin", "stdout", "stderr")


class Popen(subprocess.Popen[AnyStr]):
    """As subprocess.Popen. `preexec_fn`, `pass_fds`, another user or another executable are not for `python -m`."""

    def _execute_child(self, *given: Any) -> None:
        # What subprocess.Popen calls once it has made its pipes; it has no public name.
        inherited: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]
        asked = inspect.signature(inherited).bind(self, *given).arguments
        command, env = asked["args"], os.environ if asked["env"] is None else asked["env"]
        if list(command[:2]) != [sys.executable, "-m"] or not _serves(env):
            inherited(self, *given)
            return
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        request = {
            "argv": command[2:],
            "env": dict(env),
            "cwd": str(asked["cwd"] or Path.cwd()),
            "session": asked["start_new_session"],
        }
        streams = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        self.pid = _server().fork(request, [own if one == -1 else one for own, one in enumerate(streams)])
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in pipes))  # type: ignore[attr-defined]


def run(
    command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and return what it wrote. Raises subprocess.TimeoutExpired."""
    pipe = subprocess.PIPE
    with Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _serves(env: Mapping[str, str]) -> bool:
    """Whether a fork is the same as a program started with this environment: not where the interpreter itself heeds it,
    nor where coverage is measured, which begins at the interpreter's start."""
    return (
        sys.platform == "linux"
        and _CLONE_NUMBER is not None
        and "COVERAGE_PROCESS_CONFIG" not in os.environ
        and _interpreter_s(env) == _interpreter_s(os.environ)
    )


def _interpreter_s(env: Mapping[str, str]) -> dict[str, str]:
    heeded = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "OPENSSL", "MALLOC_")
    found = {name: value for name, value in env.items() if name.startswith(heeded) and name != "PYTHONUNBUFFERED"}
    return {"LANG": "C.UTF-8"} | found  # which Python takes where nothing is said


class _Server:
    """The fork server of this process; it ends when this process does."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def fork(self, request: dict[str, Any], streams: list[int]) -> int:
        """Return the id of a new process."""
        with self._asking:
            socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
            answer = self._channel.recv(64)
        if not answer:
            raise RuntimeError(f"the fork server has ended with {self._process.wait(10)}")
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self._process.wait(10)


_servers: dict[int, _Server] = {}
_starting = threading.Lock()


def _server() -> _Server:
    with _starting:
        if os.getpid() not in _servers:
            _servers[os.getpid()] = _Server()
        return _servers[os.getpid()]


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, until the other end is closed: None then; in a new process, what it is to be."""
    while True:
        message, streams, _, _ = socket.recv_fds(channel, _MAX_REQUEST, len(_STREAMS))
        if not message:
            return None
        request: dict[str, Any] = json.loads(message)
        is_apart, apart = os.pipe()
        pid = _fork_sibling()
        if pid == 0:
            if request["session"]:
                os.setsid()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for descriptor in (*streams, apart):
            os.close(descriptor)
        if pid:
            os.read(is_apart, 1)  # nothing, once the new process has closed its end: it leads its session by now
            channel.send(str(pid).encode())
        os.close(is_apart)
        if pid == 0:
            return request


def _fork_sibling() -> int:
    """As os.fork, but the new process is a child of this one's parent. Only for a process without other threads."""
    this = ctypes.PyDLL(None, use_errno=True)
    this.PyOS_BeforeFork()
    this.syscall.restype = ctypes.c_long
    pid = int(this.syscall(*map(ctypes.c_long, (_CLONE_NUMBER or 0, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))))
    if pid == 0:
        this.PyOS_AfterFork_Child()
    else:
        this.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


def _become(request: dict[str, Any]) -> None:
    """Run the program in this process, to its end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    if Path(request["cwd"]) != ROOT:
        _forget(_own_modules())
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(_STREAMS):
        raw = open(number, "wb" if number else "rb", 0 if number and unbuffered else -1, closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            raw,
            errors="backslashreplace" if number == 2 else None,
            line_buffering=number == 2 or os.isatty(number),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = request["argv"]
    try:
        runpy.run_module(request["argv"][0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise  # the interpreter prints it
        code = ended.code or 0
    _end(code)


def _end(code: int) -> None:
    """End this process as the interpreter does, but for taking its modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            code = 120  # the interpreter's own, for output that went nowhere
    os._exit(code & 0xFF)


def _own_modules() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] == "app"}


def _modules_that_rest_on(package: str) -> set[str]:
    """The package's modules, and those of the application that have anything of theirs, or of one of those."""
    found = {name for name in sys.modules if name.partition(".")[0] == package}
    while more := {name for name in _own_modules() - found if _origins(sys.modules[name]) & found}:
        found |= more
    return found


def _origins(module: ModuleType) -> set[str]:
    """Where a module has what it names from: other modules, and those of classes, functions and objects."""
    named = list(vars(module).values())
    return {one.__name__ if isinstance(one, ModuleType) else str(getattr(one, "__module__", "")) for one in named}


def _forget(modules: set[str]) -> None:
    """Have these modules be imported anew by whoever asks for them."""
    for name in modules:
        package, _, own = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(own, None)
    for name in modules:
        del sys.modules[name]


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    channel = socket.socket(fileno=int(sys.argv[1]))
    for package in (*_PACKAGES, *_APPLICATION):
        importlib.import_module(package)
    _forget(_modules_that_rest_on(_DECIDES_AT_ITS_IMPORT))
    gc.collect()
    gc.freeze()  # or each process would copy all of it, at the first search for garbage
    with channel, suppress(ConnectionResetError):
        request = _serve(channel)
    if request is not None:
        _become(request)


if __name__ == "__main__":
    _main()
