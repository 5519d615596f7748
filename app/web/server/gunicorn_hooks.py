"""What gunicorn.conf.py hooks into gunicorn: limits on sockets, honest connections, and the services' life.

The seam for bodies (`app.web.upload.request_body`) rests on these: a client that waits for `100 Continue` gets it at
the first read, and a connection with an unread body is announced as closing and closed, so that the rest of that body
is never taken for a request.
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
"""Some megabytes of what a few hundred requests leave behind; every 700, as by default, each request pays for one."""

_HOST = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""uri-host with an optional port (RFC 3986); gunicorn refuses two Host headers itself."""

_FIGURES = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_[0-9]+\.db")


def limit_waits(listeners: Iterable[Any], *, receive: float, send: float) -> None:
    """Bound every blocking call on the connections that these listening sockets accept, in seconds.

    Accepted sockets inherit the options. They hold where gunicorn itself reads and writes; a body's own, finer
    limits are the seam's.
    """
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(receive))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(send))
        if listener.family != socket.AF_UNIX:
            # sendfile() waits in a poll of its own, which SO_SNDTIMEO does not end: a client that stops reading its
            # download is cut off by the kernel instead.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(send * 1000))


def prepare_request(req: Any) -> None:
    """Before the application sees a request: hold back `100 Continue`, and tie keep-alive to the body being read."""
    if is_http1(req):
        _check_host(req)
        hold_continue(req)
        close_while_unread(req)


def _check_host(req: Any) -> None:
    """Raise what gunicorn answers with 400: RFC 9112 (3.2) wants that for a Host that is missing or malformed."""
    host, is_needed = host_of(req)
    if host is None and is_needed:
        raise UnusableHost("HTTP/1.1 wants a Host header", req)
    if host is not None and not _HOST.fullmatch(host):
        raise UnusableHost(f"the Host header is malformed: {host[:80]!r}", req)


def prepare_master(server: Any, application: str) -> None:
    """Check the settings, and have a reload let go of the workers only where new ones could start; otherwise it says
    why not, in one line, and they go on. New ones read files and code anew, in the environment of this process.

    Nothing is checked where another application than this one is served: it has settings of its own.
    """
    if serves(server, application):
        check_settings()
        before_reload(server, why_not)


def check_settings() -> None:
    """End this process with one line where a setting is wrong, the model or the database unfit, or a media folder not
    the one that it was or on a file system that cannot publish, before any worker is made; warn of what is unwise. From
    now on nobody but root may look into this process, nor into the workers, its forks."""
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


def prepare_figures(folder: Path) -> None:
    """Make the folder that the workers share their figures in, without those of servers before."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        if _FIGURES.fullmatch(left.name):  # nothing else: somebody may have named a folder that has other things in it
            left.unlink()


def settle_figures(pid: int) -> None:
    """A worker is gone: what it held is nothing now, what it has done stays counted."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def give_processor(server: Any, worker: Any) -> None:
    """Choose the processor for a worker that is about to be forked: one that the fewest of the others have."""
    taken = (getattr(other, "processor", None) for other in workers_of(server))
    worker.processor = processors.least_used(processors.usable(), taken, first=server.pid)


def start_services(worker: Any) -> None:
    """Start the application's threads in this worker process, now that it has forked."""
    logs.log_uncaught_exceptions()
    gc.collect()
    gc.freeze()  # what is there now stays: each search of it for garbage would hold every thread for 40 ms
    gc.set_threshold(_NEW_OBJECTS_BETWEEN_COLLECTIONS)
    cfg = worker.cfg
    proxies = Proxies(proxy_networks(cfg), any_peer="*" in cfg.forwarded_allow_ips)
    client_address.install(worker.wsgi, proxies)
    services = worker.wsgi.extensions["detections"]
    services.is_serving = lambda: worker.alive
    services.start(threads=cfg.threads, processes=cfg.workers, processor=worker.processor)


def stop_services(worker: Any) -> None:
    """Stop what `start_services` started. A worker that never came so far has no application."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["detections"].stop()
