"""gunicorn's settings. The command line and GUNICORN_CMD_ARGS override each; so does WEB_CONCURRENCY the workers."""

import atexit
import os
import resource
import shlex
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

# A file or socket that is opened later must not become a standard stream that was closed.
for _stream in range(3):
    try:
        os.fstat(_stream)
    except OSError:
        os.open(os.devnull, os.O_RDWR)

# Where the workers share their metrics. It must be said before anything imports prometheus_client, which decides at
# its import whether metrics are shared at all, and be there before the application is, which --preload makes here. A
# folder that was given is its giver's to remove. One of ours stays through a reload (HUP), which reads this file
# again in the same environment; a new master (USR2, which gunicorn tells by GUNICORN_PID) has one of its own.
_OURS = "DETECTIONS_OWN_METRICS"
_PREFIX = "detections-metrics-"
_needs_folder = not os.environ.get("PROMETHEUS_MULTIPROC_DIR") or (_OURS in os.environ and "GUNICORN_PID" in os.environ)
_SHARED_MEMORY = "/dev/shm"
_has_shared_memory = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
try:
    tempfile.gettempdir()
except FileNotFoundError:  # a root file system that is read-only
    if not _has_shared_memory:
        sys.exit("detections: neither /tmp nor /dev/shm can be written: mount a tmpfs at /tmp, or set TMPDIR")
    tempfile.tempdir = _SHARED_MEMORY
if _needs_folder:
    _path = f"{tempfile.gettempdir()}/{_PREFIX}{uuid.uuid4().hex}"
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[_OURS] = _path

from app.process import logs, temp_folders  # noqa: E402
from app.settings import LogSettings, server_processes  # noqa: E402
from app.startup import exit_on_error  # noqa: E402
from app.web.server import check, gunicorn_hooks, gunicorn_log, redaction  # noqa: E402


def _remove_own_metrics() -> None:
    if _OURS in os.environ:
        shutil.rmtree(os.environ[_OURS], ignore_errors=True)


if _needs_folder:
    # The descriptor stays open in this process and its workers: while one of them lives, no other server removes it.
    temp_folders.create(Path(os.environ[_OURS]))
    # What ends before on_exit, as --check-config does, leaves no folder either. Workers, which are forks, remove none.
    atexit.register(lambda maker: _remove_own_metrics() if os.getpid() == maker else None, os.getpid())

wsgi_app = "wsgi:app"

# Reachable from this machine only: whoever opens it to a network does so knowingly, best behind a proxy with TLS.
bind = ["127.0.0.1:8000"]

# One for each processor, on which it stays: one alone takes in no more photos than Python gets through on one. They
# share the detectors out.
with exit_on_error():
    workers = server_processes()

# Every line in the form that LOG_FORMAT names, gunicorn's own included.
logger_class = gunicorn_log.OneFormatLogger
with exit_on_error():
    _logs = LogSettings.from_env()
    loglevel = _logs.level
    logs.configure(_logs)

# Threads, because an upload or a waiting answer holds its worker for minutes: sync workers are killed by `timeout`
# meanwhile. Ours is gthread that idle clients cannot stop.
worker_class = "app.web.server.gunicorn_worker.HeadFirstWorker"

# All but two of them are slots for uploads, downloads and waiting answers. The bytes are moved without the
# interpreter's lock, so more slots than processors are right, and each costs no more than its stack.
threads = 16

# A connection needs no thread while its head is still to come, so idle ones may be many: at the limit nobody else is
# let in for as long as a head may take. Beyond the process's open files accept() would end the worker, and half of
# them may have a file of their own to read or write.
worker_connections = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

# Silence of the main loop, not the length of a request: it beats every second, so this is a worker that is stuck.
timeout = 120

# An upload under way at shutdown has this long to end; supervisors commonly kill after 90 s.
graceful_timeout = 30

# A browser's or a pool's next request comes within seconds; a proxy's keep-alive should be set below this.
keepalive = 15

# The heartbeat file is touched by the main loop: on the disk that takes the uploads it can hang behind their fsync.
worker_tmp_dir = _SHARED_MEMORY if _has_shared_memory else tempfile.gettempdir()

# ?name= carries file names of some thousand percent-encoded bytes (8190 is gunicorn's maximum); tokens with many
# claims exceed the default of 8190 for a field; nobody sends more than a few dozen fields.
limit_request_line = 8190
limit_request_field_size = 16380
limit_request_fields = 64

# By default a proxy on this machine is trusted to pass SCRIPT_NAME and PATH_INFO as headers, and every proxy passes on
# what its clients send: these would choose another path than the proxy has looked at, or end in a 500.
forwarder_headers = ""

# It would create a file in the home directory, for a remote control that nobody asked for.
control_socket_disable = True

# Seconds a blocking read or write of gunicorn's own may take: the head of a request under TLS, and an answer.
# A reader that takes nothing of its answer for half a minute is gone.
_RECEIVE_SECONDS = 10
_SEND_SECONDS = 30


def on_starting(server: Any) -> None:
    redaction.install()
    temp_folders.sweep(_PREFIX)  # of servers that were killed
    gunicorn_hooks.prepare_figures(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    # Here, because a worker that cannot start is started again for ever.
    gunicorn_hooks.prepare_master(server, wsgi_app)


def pre_fork(server: Any, worker: Any) -> None:
    gunicorn_hooks.give_processor(server, worker)


def post_worker_init(worker: Any) -> None:
    # Here and not in when_ready, which is not called for sockets that a reload or --reuse-port creates.
    gunicorn_hooks.limit_waits(worker.sockets, receive=_RECEIVE_SECONDS, send=_SEND_SECONDS)
    gunicorn_hooks.start_services(worker)


def pre_request(worker: Any, req: Any) -> None:
    gunicorn_hooks.prepare_request(req)


def worker_exit(server: Any, worker: Any) -> None:
    gunicorn_hooks.stop_services(worker)


def child_exit(server: Any, worker: Any) -> None:
    gunicorn_hooks.settle_figures(worker.pid)


def on_exit(server: Any) -> None:
    _remove_own_metrics()


# gunicorn itself only imports the application then, and has no hook for it.
if "--check-config" in [*sys.argv, *shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))]:
    check.check()
