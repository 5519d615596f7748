"""Everything that this service uses of gunicorn beyond its documented settings and hooks, in one module.

gunicorn may change any of it in any release. So nobody else imports gunicorn (import-linter), `requirements.in` names
the releases that were tried, and `tests/web/server/test_gunicorn_internals.py` checks each thing that is relied on and
fails with its name. Each class and function here says what it relies on.
"""

import io
import logging
import socket
import ssl
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from selectors import EVENT_READ
from types import SimpleNamespace
from typing import Any
from wsgiref.types import WSGIEnvironment

from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.http.message import Request
from gunicorn.workers.gthread import ThreadWorker

__all__ = ["Logger", "ParseException"]

LOGGERS = ("gunicorn.error", "gunicorn.access")
"""The names of gunicorn's two loggers, whose records are filtered."""


class OwnHandler(logging.Handler):
    """A handler that gunicorn removes when it sets up its log again, as it does at each reload.

    Relies on `_gunicorn`, by which `Logger` finds the handlers to remove; on `Logger.setup`, `reopen_files` and
    `atoms`, which `app.web.server.gunicorn_log` extends; and on `error_log` and `access_log`.
    """

    _gunicorn = True


class UnusableHost(InvalidHeader):  # type: ignore[misc]
    """The Host header is missing or malformed; the text says which.

    Relies on 400 being the response to InvalidHeader, and on the text being kept as `hdr`.
    """

    def __str__(self) -> str:
        return str(self.hdr)


def is_http1(request: Any) -> bool:
    """Return whether this is an HTTP/1 request, whose body and connection this module knows."""
    return isinstance(request, Request)


def host_of(request: Any) -> tuple[str | None, bool]:
    """Return the Host header, and whether the request must have one.

    Relies on `headers`, pairs with names in upper case, and on `version`, a pair of numbers.
    """
    host = next((value for name, value in request.headers if name == "HOST"), None)
    return host, request.version >= (1, 1)


def hold_continue(request: Any) -> None:
    """Postpone `100 Continue` until the first read of the body.

    Relies on `_expected_100_continue`, which the pre_request hook can still clear, and on `unreader.sock`.
    """
    if request._expected_100_continue:  # noqa: SLF001 (there is no public name for it)
        request._expected_100_continue = False  # noqa: SLF001
        request.body.reader = HeldContinue(request.body, request.unreader.sock)


def close_while_unread(request: Any) -> None:
    """Close the connection after the response if a part of the body is still unread then.

    Relies on `should_close`, which the response and the worker call.
    """
    should_close: Callable[[], bool] = request.should_close
    request.should_close = lambda: should_close() or not is_off_the_connection(request.body)


class HeldContinue:
    """Replaces the reader of a body whose client waits for `100 Continue`, and sends that at the first read.

    gunicorn would send it before the application has checked the token, and the client would then send a body that is
    refused. Relies on `Body.reader`, which every read of the body uses.
    """

    def __init__(self, body: Any, sock: socket.socket) -> None:
        self.reader = body.reader
        self._body = body
        self._sock = sock

    def release(self) -> None:
        """Send `100 Continue` and restore the original reader."""
        self._body.reader = self.reader
        self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def read(self, size: int) -> Any:
        self.release()
        return self.reader.read(size)


def is_off_the_connection(body: Any) -> bool:
    """Return whether the whole body was received, so that the connection's next bytes are the next request.

    Relies on `Body.failed`, on `LengthReader.length`, which counts the remaining bytes, and on `ChunkedReader.parser`,
    which is None after the last chunk.
    """
    reader = body.reader
    if isinstance(reader, LengthReader):
        return reader.length == 0 and not body.failed
    return isinstance(reader, ChunkedReader) and reader.parser is None and not body.failed


def unread_bytes(body: Any) -> int | None:
    """Return the number of bytes of a body that are still to be received; None if its length is not known.

    Relies on `LengthReader.length`, and on `Unreader.buf`, which holds bytes received in advance.
    """
    reader = _reader_of(body)
    if not isinstance(reader, LengthReader):
        return None
    return max(0, int(reader.length) - len(reader.unreader.buf.getvalue()))


class PlainBody:
    """A body of known length on a connection without TLS, which is received directly from its socket.

    Until its last byte is taken it counts as failed, so that after any error bytes of a body are never parsed as a
    request. Relies on `Body.failed`, after which gunicorn closes the connection; on `Body.buf`, which holds bytes that
    were read ahead of the application; on `LengthReader.length` and `unreader`; and on `take_buffered` and `unread` of
    the latter.
    """

    def __init__(self, body: Any, reader: Any) -> None:
        self.sock: socket.socket = reader.unreader.sock
        self._body = body
        self._reader = reader

    @property
    def left(self) -> int:
        """The number of bytes that are still to be taken."""
        return int(self._reader.length)

    def start(self) -> tuple[bytes, bytes]:
        """Send `100 Continue` if the client waits for it; return the bytes that gunicorn has received already.

        These are the bytes read ahead of the application, and those in the connection's buffer. Bytes after the body
        stay there. Raises OSError.
        """
        self._body.failed = True
        _invite(self._body)
        early, self._body.buf = self._body.buf.getvalue(), io.BytesIO()
        buffered = self._reader.unreader.take_buffered()
        held = buffered[: self._reader.length]
        self._reader.unreader.unread(buffered[len(held) :])
        self.take(len(held))
        return early, held

    def take(self, count: int) -> None:
        """Count `count` further bytes as received."""
        self._reader.length -= count
        if not self._reader.length:
            self._body.failed = False


class FramedBody:
    """A body that only gunicorn's own reader can receive: in chunks, or over TLS.

    Relies on `Body.read` and `Body.failed`; on `ChunkedReader.req`, whose `unreader` has the connection; and on
    `SocketUnreader.sock`, of which the reader calls nothing but `recv`.
    """

    def __init__(self, body: Any, unreader: Any) -> None:
        self._body = body
        self._unreader = unreader

    def start(self) -> tuple[bytes, bytes]:
        """Send `100 Continue` if the client waits for it; the body counts as failed until `complete`.

        Raises OSError.
        """
        self._body.failed = True
        _invite(self._body)
        return b"", b""

    def complete(self) -> None:
        """Note that the whole body was received."""
        self._body.failed = False

    @contextmanager
    def received_through(self, wrap: Callable[[socket.socket], Any]) -> Iterator[None]:
        """Let the reader receive from `wrap(socket)` within the block."""
        sock = self._unreader.sock
        self._unreader.sock = wrap(sock)
        try:
            yield
        finally:
            self._unreader.sock = sock


def received_body(body: Any) -> PlainBody | FramedBody | None:
    """Return the body of a request's `wsgi.input`; None if another server made it.

    Relies on a ChunkedReader or a LengthReader for each body that has an end.
    """
    if not isinstance(body, Body):
        return None
    reader = _reader_of(body)
    if isinstance(reader, ChunkedReader):
        return FramedBody(body, reader.req.unreader)
    # The environment's socket sends responses, the reader's receives bodies.
    if isinstance(reader.unreader.sock, ssl.SSLSocket) or not isinstance(reader, LengthReader):
        return FramedBody(body, reader.unreader)
    return PlainBody(body, reader)


def socket_in(environ: WSGIEnvironment) -> object:
    """Return the socket to which the response is written; None with another server. Relies on its name in `environ`."""
    return environ.get("gunicorn.socket")


class GthreadWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's gthread worker, with the operations on its connections that `HeadFirstWorker` needs.

    Relies on the methods that are extended there (`run`, `notify`, `enqueue_req`, `handle`, `handle_request`,
    `finish_request`, `murder_pending`, `handle_error`), on being called for each connection in this order, and on
    `finish_request` and `murder_pending` being called in the main loop alone. On `poller`, whose keys' `data` the main
    loop calls; `pending_conns`, which is in the order of `timeout`; `on_pending_socket_readable`; `nr_conns`; `cfg`;
    and, of a connection, on `sock`, `client`, `server`, `parser`, `timeout`, `data_ready` and `close`.
    """

    @staticmethod
    def buffered(conn: Any) -> bytes:
        """Return the bytes of the connection's next request received so far. Relies on `parser.unreader.buf`."""
        return bytes(conn.parser.unreader.buf.getvalue()) if conn.parser else b""

    def await_more(self, conn: Any, deadline: float) -> None:
        """Call `enqueue_req` with a connection once it is readable; close it at `deadline` on the monotonic clock."""
        conn.timeout = deadline
        conn.sock.setblocking(False)
        insort(self.pending_conns, conn, key=lambda pending: pending.timeout)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def drop(self, conn: Any) -> None:
        """Close a connection at once. Relies on `nr_conns` counting those that are open."""
        self.nr_conns -= 1
        conn.close()

    @staticmethod
    def answering_to(conn: Any, sock: Any) -> Any:
        """Return the connection with another socket for the response.

        Relies on `handle_request` using nothing of it but `sock`, `client` and `server`.
        """
        return SimpleNamespace(sock=sock, client=conn.client, server=conn.server)

    @staticmethod
    def body_of(conn: Any) -> Any:
        """Return the body of the last request parsed; None if there was none. Relies on `parser.mesg`."""
        request = getattr(conn.parser, "mesg", None)
        return None if request is None else request.body

    def log_error(self, req: Any, addr: Any, exc: BaseException) -> int:
        """Log an error as gunicorn does, and return the status of the response that it would send.

        Relies on `handle_error` writing the whole response by one `sendall` to a non-blocking socket.
        """
        answer = _Answer()
        super().handle_error(req, answer, addr, exc)
        return answer.status

    @staticmethod
    def write_at_once(client: Any, data: bytes) -> None:
        """Write without waiting for the client, which may be gone. Relies on `util.write_nonblock`."""
        with suppress(OSError):
            util.write_nonblock(client, data)


class _Answer:
    """Replaces the client's socket, to read the status of the response that gunicorn sends for an error."""

    def __init__(self) -> None:
        self.status = 500

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.status = int(data.split(b" ", 2)[1])


def workers_of(server: Any) -> list[Any]:
    """Return the master's current workers. Relies on `WORKERS`, which has them by process id."""
    return list(server.WORKERS.values())


def proxy_networks(cfg: Any) -> Iterable[IPv4Network | IPv6Network]:
    """Return the networks of trusted proxies. Relies on `forwarded_allow_networks`."""
    networks: Iterable[IPv4Network | IPv6Network] = cfg.forwarded_allow_networks()
    return networks


def serves(server: Any, application: str) -> bool:
    """Return whether the server serves this application. Relies on `app.app_uri`."""
    return bool(server.app.app_uri == application)


def before_reload(server: Any, unfit: Callable[[str], str | None]) -> None:
    """At SIGHUP, reload only where `unfit`, given the server's folder, returns no reason against it. Relies on
    `handle_hup`, which the master looks up when the signal comes, on `cfg.chdir` and on `log`."""
    reload: Callable[[], None] = server.handle_hup

    def handle_hup() -> None:
        reason = unfit(server.cfg.chdir)
        if reason is None:
            reload()
        else:
            server.log.error("Not reloaded, the workers of before go on: %s", reason)

    server.handle_hup = handle_hup


def _reader_of(body: Any) -> Any:
    return body.reader.reader if isinstance(body.reader, HeldContinue) else body.reader


def _invite(body: Any) -> None:
    if isinstance(body.reader, HeldContinue):
        body.reader.release()
