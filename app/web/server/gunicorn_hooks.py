"""The hooks of gunicorn.conf.py: limits on sockets, checks before requests, and start and stop of the services.

`app.web.upload.request_body` relies on them: a client that waits for `100 Continue` gets it at the first read of the
body, and a connection with an unread body is closed after the response, so that the rest of the body is never parsed
as a request.
"""

import gc
import re
import socket
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from app.detection.sandbox.kernel import hide_memory
from app.process import logs, processors
from app.process.timeval import timeval
from app.runs.model_check import check_model
from app.services import open_database
from app.settings import Settings
from app.startup import (
    check_file_systems,
    exit_on_error,
    log_database_location,
    warn_about_disabled_work,
    warn_about_plain_http,
)
from app.storage.folder_ownership import check_folders
from app.storage.relocation import check_rows
from app.web.auth import client_address
from app.web.auth.client_address import Proxies
from app.web.server.check import why_not
from app.web.server.gunicorn_internals import (
    UnusableHost,
    before_reload,
    close_while_unread,
    hold_continue,
    host_of,
    is_http1,
    proxy_networks,
    serves,
    workers_of,
)

_NEW_OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""Some megabytes, the garbage of a few hundred requests. With the default, 700, every request pays for a collection."""

_HOST = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""uri-host with an optional port (RFC 3986); gunicorn refuses two Host headers itself."""

_METRIC_FILES = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_[0-9]+\.db")


def limit_waits(listeners: Iterable[Any], *, receive: float, send: float) -> None:
    """Limit every blocking call on the connections that these listening sockets accept, in seconds.

    Accepted sockets inherit the options. They apply where gunicorn itself reads and writes; request bodies have their
    own limits (`app.web.upload.receive_timeouts`).
    """
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(receive))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(send))
        if listener.family != socket.AF_UNIX:
            # SO_SNDTIMEO does not apply to sendfile(), which polls by itself: the kernel closes the connection of a
            # client that stops reading its download.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(send * 1000))


def prepare_request(req: Any) -> None:
    """Check a request; postpone its `100 Continue`, and close the connection after it if its body is not read."""
    if is_http1(req):
        _check_host(req)
        hold_continue(req)
        close_while_unread(req)


def _check_host(req: Any) -> None:
    """Raise UnusableHost, which leads to a 400, for a missing or malformed Host header (RFC 9112, 3.2)."""
    host, is_needed = host_of(req)
    if host is None and is_needed:
        raise UnusableHost("HTTP/1.1 wants a Host header", req)
    if host is not None and not _HOST.fullmatch(host):
        raise UnusableHost(f"the Host header is malformed: {host[:80]!r}", req)


def prepare_master(server: Any, application: str) -> None:
    """Check the settings, and let a reload replace the workers only if new ones can start.

    Otherwise the reload logs the reason in one line, and the workers continue. New workers read files and code again,
    with the environment of this process. Does nothing if gunicorn serves another application.
    """
    if serves(server, application):
        check_settings()
        before_reload(server, why_not)


def check_settings() -> None:
    """End this process with one line if it cannot serve, before a worker is forked, and log warnings.

    Checks the settings, the model, the database, and that each media folder is the expected one and on a file system
    that can publish files. From then on only root can read the memory of this process and of its workers.
    """
    hide_memory()
    with exit_on_error():
        settings = Settings.from_env()
        logs.configure(settings.logs)
        log_database_location(settings.database)
        warn_about_plain_http(settings)
        warn_about_disabled_work(settings)
        check_model(settings)
        with closing(open_database(settings.database)) as database:
            noticed = database.check()
            if check_folders(database, settings.media_folders):
                check_rows(database, settings.media_folders)
        check_file_systems(settings)
    if noticed:
        sys.stderr.write(f"detections: {noticed}\n")


def prepare_metrics(folder: Path) -> None:
    """Create the folder in which the workers share their metrics, and remove those of earlier servers."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        if _METRIC_FILES.fullmatch(left.name):  # the folder may contain other files
            left.unlink()


def drop_metrics_of(pid: int) -> None:
    """Remove the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def give_processor(server: Any, worker: Any) -> None:
    """Assign to a worker that is about to be forked the processor with the fewest other workers."""
    taken = (getattr(other, "processor", None) for other in workers_of(server))
    worker.processor = processors.least_used(processors.usable(), taken, first=server.pid)


def start_services(worker: Any) -> None:
    """Start the application's threads in this worker process, after the fork."""
    logs.log_uncaught_exceptions()
    gc.collect()
    gc.freeze()  # these objects stay: searching them for garbage would stop every thread for 40 ms
    gc.set_threshold(_NEW_OBJECTS_BETWEEN_COLLECTIONS)
    cfg = worker.cfg
    proxies = Proxies(proxy_networks(cfg), any_peer="*" in cfg.forwarded_allow_ips)
    client_address.install(worker.wsgi, proxies)
    services = worker.wsgi.extensions["detections"]
    services.is_serving = lambda: worker.alive
    services.start(threads=cfg.threads, processes=cfg.workers, processor=worker.processor)


def stop_services(worker: Any) -> None:
    """Stop what `start_services` started, if the worker had loaded its application."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["detections"].stop()
