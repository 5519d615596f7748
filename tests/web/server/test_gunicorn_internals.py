"""What the service relies on in gunicorn, checked one by one: another release that changes any of it fails by name."""

import inspect
import io
import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import gunicorn
import pytest
from gunicorn import util
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidHeader, LimitRequestLine, ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.web.server import gunicorn_internals
from app.web.server.gunicorn_internals import LOGGERS, GthreadWorker, OwnHandler
from app.web.server.gunicorn_worker import HeadFirstWorker

PEER = ("127.0.0.1", 1)
OF_LENGTH = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
ASKING = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"


@dataclass(frozen=True)
class Reliance:
    """One thing that is relied on: what it is in gunicorn, what of `gunicorn_internals` uses it, and how it is seen."""

    name: str
    used_by: str
    holds: Callable[[], bool]


class Quiet:
    """A log that takes everything."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_options: None


@contextmanager
def pair(sent: bytes = b"") -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's and a client's end of a connection, on which the client has sent this."""
    server, client = socket.socketpair()
    with server, client:
        client.sendall(sent)
        yield server, client


@contextmanager
def request(sent: bytes) -> Iterator[tuple[Any, Any]]:
    """The parser of a connection, and the request that it has parsed."""
    with pair(sent) as (server, _):
        parser = RequestParser(Config(), server, PEER)
        yield parser, next(parser)


def ends(parser: Any) -> bool:
    """Whether the parser takes no other request from its connection."""
    with pytest.raises(StopIteration):
        next(parser)
    return True


@contextmanager
def worker(kind: type[Any] = ThreadWorker, **settings: Any) -> Iterator[Any]:
    """A worker that serves an application which answers "yes"."""
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    made = kind(1, 1, [], None, 30, cfg, Quiet())
    with closing(made.tmp), selectors.DefaultSelector() as made.poller:
        made.seen = {}

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            made.seen.update(environ)
            environ["wsgi.input"].read()
            start_response("200 OK", [("Content-Length", "3")])
            return [b"yes"]

        made.wsgi = application
        yield made


def parameters(function: Any, *names: str) -> bool:
    return list(inspect.signature(function).parameters) == list(names)


def an_instance_has(*names: str) -> bool:
    with worker() as made:
        return all(hasattr(made, name) for name in names)


def a_connection_has(*names: str) -> bool:
    with pair() as (server, _):
        conn = TConn(Config(), server, PEER, ("127.0.0.1", 2))
        return all(hasattr(conn, name) for name in names) and conn.parser is None and not conn.data_ready


def served(sent: bytes, answering_to: Callable[..., Any] | None = None, **settings: Any) -> tuple[Any, bytes, Any, Any]:
    """What `handle` returned, what the client received, the connection, and the environment."""
    with worker(**settings) as made, pair(sent) as (server, client):
        conn = TConn(made.cfg, server, PEER, ("127.0.0.1", 2))
        conn.data_ready = True
        if answering_to is not None:
            usual = made.handle_request
            made.handle_request = lambda req, conn: usual(req, answering_to(conn, conn.sock))
        result = made.handle(conn)
        client.setblocking(False)
        return result, client.recv(1 << 16), conn, made.seen


def handle_tells_whether_the_connection_stays() -> bool:
    stays, answer, conn, environ = served(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", keepalive=2)
    ended = served(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", keepalive=2)[0]
    return bool(
        stays is True
        and ended is False
        and answer.endswith(b"yes")
        and environ["gunicorn.socket"] is conn.sock
        and conn.parser.mesg.body is not None
    )


def handle_request_needs_no_more_of_a_connection() -> bool:
    answer = served(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", GthreadWorker.answering_to)[1]
    return answer.endswith(b"yes")


def a_hook_can_clear_the_invitation() -> bool:
    def clear(_worker: Any, req: Any) -> None:
        assert req._expected_100_continue
        req._expected_100_continue = False

    return b"100 Continue" not in served(ASKING, pre_request=clear)[1] and b"100 Continue" in served(ASKING)[1]


def a_request_has_headers_and_version() -> bool:
    with request(OF_LENGTH) as (_, req):
        return ("HOST", "here") in req.headers and req.version == (1, 1)


def a_replaced_should_close_is_asked() -> bool:
    with request(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") as (parser, req):
        req.should_close = lambda: True
        return ends(parser) and Response(req, parser.unreader.sock, Config()).should_close()


def a_body_of_known_length_is_counted_down() -> bool:
    with request(OF_LENGTH + b"0123456789next") as (parser, req):
        body = req.body
        plain = isinstance(body.reader, LengthReader) and body.reader.length == 10 and not body.failed
        first = body.read(4)
        return bool(
            plain
            and first + body.buf.getvalue() == b"0123456789"
            and body.reader.length == 0
            and body.reader.unreader is parser.unreader
            and parser.unreader.buf.getvalue() == b"next"
        )


def a_chunked_body_ends() -> bool:
    with request(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n") as (parser, req):
        reader = req.body.reader
        begins = isinstance(reader, ChunkedReader) and reader.parser is not None and reader.req.unreader
        return bool(begins is parser.unreader and req.body.read() == b"abc" and reader.parser is None)


def malformed_chunks_are_told() -> bool:
    with request(CHUNKED + b"zz\r\n") as (_, req):
        with pytest.raises(ParseException):
            req.body.read()
        return True


def a_cut_off_chunk_is_an_error_of_the_connection() -> bool:
    with pair(CHUNKED + b"5\r\nab") as (server, client):
        req = next(RequestParser(Config(), server, PEER))
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match="No more data"):
            req.body.read()
        return True


def a_failed_body_ends_its_connection() -> bool:
    with request(OF_LENGTH + b"0123456789" + OF_LENGTH) as (parser, req):
        req.body.read()
        req.body.failed = True
        return ends(parser)


def what_is_buffered_is_taken_and_given_back() -> bool:
    with request(OF_LENGTH + b"01234") as (parser, _):
        unreader = parser.unreader
        taken = unreader.take_buffered()
        emptied = unreader.buf.getvalue() == b""
        unreader.unread(taken)
        unreader.unread(b"before")
        return bool(emptied and unreader.buf.getvalue() == b"before01234")


def a_body_is_received_through_recv_alone() -> bool:
    with request(OF_LENGTH) as (parser, req):
        parser.unreader.sock = SimpleNamespace(recv=io.BytesIO(b"0123456789").read)
        return bool(req.body.read() == b"0123456789")


def every_read_goes_through_the_reader() -> bool:
    with request(OF_LENGTH) as (_, req):
        req.body.reader = SimpleNamespace(read=io.BytesIO(b"other").read)
        return bool(req.body.read() == b"other")


def errors_are_answered_by_one_write() -> bool:
    with worker(GthreadWorker) as made:
        errors = InvalidHeader("of ours"), LimitRequestLine(1, 1), RuntimeError("anything")
        return [made.log_error(None, PEER, error) for error in errors] == [400, 414, 500]


def an_invalid_header_keeps_its_text() -> bool:
    return str(gunicorn_internals.UnusableHost("which", None)) == "which"


def a_write_does_not_wait() -> bool:
    with pair() as (server, client):
        util.write_nonblock(server, b"at once")
        return client.recv(100) == b"at once" and server.gettimeout() is None


def the_main_loop_calls_what_is_registered() -> bool:
    with worker() as made, pair(b"x") as (server, _):
        called: list[Any] = []
        made.poller.register(server, selectors.EVENT_READ, called.append)
        made.wait_for_and_dispatch_events(1.0)
        return called == [server]


def a_pending_connection_that_is_readable_is_enqueued() -> bool:
    with worker(GthreadWorker) as made, pair(b"x") as (server, _):
        enqueued: list[Any] = []
        made.enqueue_req = enqueued.append
        conn = TConn(made.cfg, server, PEER, PEER)
        made.await_more(conn, time.monotonic() + 60)
        waits = list(made.pending_conns) == [conn]
        made.wait_for_and_dispatch_events(1.0)
        return waits and enqueued == [conn] and not made.pending_conns and not made.poller.get_map()


def a_pending_connection_is_closed_at_its_time() -> bool:
    with worker(GthreadWorker) as made, pair() as (server, client):
        made.nr_conns = 1
        conn = TConn(made.cfg, server, PEER, PEER)
        made.await_more(conn, time.monotonic() - 1)
        made.murder_pending()
        return client.recv(1) == b"" and made.nr_conns == 0 and not made.pending_conns


def a_closed_connection_is_counted_off() -> bool:
    with worker(GthreadWorker) as made, pair() as (server, client):
        made.nr_conns = 1
        made.drop(TConn(made.cfg, server, PEER, PEER))
        return client.recv(1) == b"" and made.nr_conns == 0


def the_log_removes_its_own_handlers() -> bool:
    logs = [logging.getLogger(name) for name in LOGGERS]
    before = [(log, list(log.handlers), log.propagate, log.level) for log in logs]
    cfg = Config()
    log = Logger(cfg)
    try:
        ours = OwnHandler()
        log.error_log.addHandler(ours)
        log.setup(cfg)
        return [log.error_log, log.access_log] == logs and ours not in log.error_log.handlers
    finally:
        for one, handlers, propagate, level in before:
            for handler in set(one.handlers) - set(handlers):
                one.removeHandler(handler)
                handler.close()
            one.propagate, one.level = propagate, level


def believed_proxies_are_networks() -> bool:
    networks = list(gunicorn_internals.proxy_networks(Config()))
    return any(network.version == 4 and network.is_loopback for network in networks)


def the_master_looks_its_handlers_up_when_a_signal_comes() -> bool:
    return parameters(Arbiter.handle_hup, "self") and '"handle_%s"' in inspect.getsource(Arbiter)


EXTENDED = {
    "run": ("self",),
    "notify": ("self",),
    "enqueue_req": ("self", "conn"),
    "handle": ("self", "conn"),
    "handle_request": ("self", "req", "conn"),
    "finish_request": ("self", "conn", "fs"),
    "murder_pending": ("self",),
    "handle_error": ("self", "req", "client", "addr", "exc"),
}
"""The methods of ThreadWorker that the worker extends, and their parameters."""

IN_WORKER = "GthreadWorker"

RELIANCES = [
    *(
        Reliance(
            f"ThreadWorker.{name}({', '.join(names)})",
            IN_WORKER,
            partial(parameters, getattr(ThreadWorker, name), *names),
        )
        for name, names in EXTENDED.items()
    ),
    Reliance(
        "ThreadWorker: poller, pending_conns, nr_conns, cfg, alive, sockets",
        IN_WORKER,
        partial(an_instance_has, "poller", "pending_conns", "nr_conns", "cfg", "alive", "sockets"),
    ),
    Reliance(
        "TConn: sock, client, server, parser, timeout, data_ready, close",
        IN_WORKER,
        partial(a_connection_has, "sock", "client", "server", "parser", "timeout", "data_ready", "close"),
    ),
    Reliance("ThreadWorker.poller's keys", IN_WORKER, the_main_loop_calls_what_is_registered),
    Reliance("ThreadWorker.on_pending_socket_readable", IN_WORKER, a_pending_connection_that_is_readable_is_enqueued),
    Reliance("ThreadWorker.murder_pending", IN_WORKER, a_pending_connection_is_closed_at_its_time),
    Reliance("ThreadWorker.nr_conns", IN_WORKER, a_closed_connection_is_counted_off),
    Reliance(
        "ThreadWorker.handle's result, and gunicorn.socket", "socket_in", handle_tells_whether_the_connection_stays
    ),
    Reliance("what handle_request uses of a connection", IN_WORKER, handle_request_needs_no_more_of_a_connection),
    Reliance("Worker.handle_error's answers", IN_WORKER, errors_are_answered_by_one_write),
    Reliance("util.write_nonblock", IN_WORKER, a_write_does_not_wait),
    Reliance("InvalidHeader.hdr", "UnusableHost", an_invalid_header_keeps_its_text),
    Reliance("Request: headers, version", "host_of", a_request_has_headers_and_version),
    Reliance("Request._expected_100_continue", "hold_continue", a_hook_can_clear_the_invitation),
    Reliance("Request.should_close", "close_while_unread", a_replaced_should_close_is_asked),
    Reliance("Body.reader", "HeldContinue", every_read_goes_through_the_reader),
    Reliance("Body.failed", "is_off_the_connection", a_failed_body_ends_its_connection),
    Reliance("Body.buf, LengthReader: length, unreader", "PlainBody", a_body_of_known_length_is_counted_down),
    Reliance("Unreader: buf, take_buffered, unread", "PlainBody", what_is_buffered_is_taken_and_given_back),
    Reliance("ChunkedReader: parser, req.unreader", "FramedBody", a_chunked_body_ends),
    Reliance("ParseException of malformed chunks", "ParseException", malformed_chunks_are_told),
    Reliance("OSError of chunks that are cut off", "FramedBody", a_cut_off_chunk_is_an_error_of_the_connection),
    Reliance("SocketUnreader.sock", "FramedBody", a_body_is_received_through_recv_alone),
    Reliance("Logger: setup, error_log, access_log, _gunicorn", "OwnHandler", the_log_removes_its_own_handlers),
    Reliance("Logger.reopen_files(self)", "OwnHandler", partial(parameters, Logger.reopen_files, "self")),
    Reliance(
        "Logger.atoms(self, resp, req, environ, request_time)",
        "OwnHandler",
        partial(parameters, Logger.atoms, "self", "resp", "req", "environ", "request_time"),
    ),
    Reliance("Config.forwarded_allow_networks", "proxy_networks", believed_proxies_are_networks),
    Reliance("Arbiter.WORKERS", "workers_of", lambda: isinstance(Arbiter.WORKERS, dict)),
    Reliance("Arbiter.handle_hup", "before_reload", the_master_looks_its_handlers_up_when_a_signal_comes),
    Reliance("WSGIApplication.app_uri", "serves", lambda: "app_uri" in WSGIApplication.load_config.__code__.co_names),
]


@pytest.mark.parametrize("relied_on", RELIANCES, ids=lambda one: one.name)
def test_gunicorn_is_as_it_is_relied_on(relied_on: Reliance) -> None:
    try:
        holds, why = relied_on.holds(), ""
    except Exception as error:  # noqa: BLE001 (whatever it raises, it is not as it was)
        holds, why = False, f": {error!r}"
    assert holds, (
        f"gunicorn {gunicorn.__version__} has changed {relied_on.name}, which {relied_on.used_by} in "
        f"{gunicorn_internals.__file__} relies on{why}"
    )


def test_every_reliance_names_who_relies_on_it() -> None:
    assert [one.name for one in RELIANCES if not hasattr(gunicorn_internals, one.used_by)] == []


def test_no_other_method_of_the_worker_is_extended() -> None:
    ours = {name for kind in (GthreadWorker, HeadFirstWorker) for name in vars(kind) if not name.startswith("__")}
    assert {name for name in ours if hasattr(ThreadWorker, name)} == set(EXTENDED)
