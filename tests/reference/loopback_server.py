"""A small HTTP/1.1 server for a WSGI application on loopback, which can be stopped like a pulled plug.

Werkzeug's own server closes every connection after one answer, and wsgiref's too; a sender that keeps its
connections open, and what becomes of them in an outage, can only be tested against a server that keeps them.
It reads a whole body before the application runs, so it is for small messages only.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from app.demo.reference_app import MAX_BODY_BYTES

DROP_CONNECTION = "loopback.drop_connection"
_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_JOIN_SECONDS = 10.0


class LoopbackServer(ThreadingMixIn, WSGIServer):
    """Serves one application, one thread a connection. `environ[DROP_CONNECTION]()` leaves a request unanswered."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, application: WSGIApplication, clock: Callable[[], float] = time.time
    ) -> None:
        """Listen at once; answers are dated by `clock`. Raises OSError where the port is taken."""
        self.clock = clock
        self._lock = threading.Lock()
        self._connections: dict[Any, threading.Thread] = {}
        super().__init__((host, port), _Handler)
        self.set_app(application)
        self._accepting = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._accepting.start()

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the resolver for the host's full name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is no fault of the server; anything else is shown.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stop listening and cut every open connection; when it returns, nothing of the server is running."""
        self.shutdown()
        self.server_close()
        self._accepting.join(_JOIN_SECONDS)
        with self._lock:
            connections = list(self._connections.items())
        for connection, _ in connections:
            with suppress(OSError):  # the client may have closed it already
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in connections:
            thread.join(_JOIN_SECONDS)


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for one answer

    def handle(self) -> None:
        BaseHTTPRequestHandler.handle(self)  # one request after the other, where wsgiref's takes one only

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.rfile.close()  # left open, and with it the socket, where the client is gone before its answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the request log tells more."""

    def _run(self) -> None:
        environ: dict[str, Any] = self.get_environ() | {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(self._body()),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        dropped: list[bool] = []
        environ[DROP_CONNECTION] = lambda: dropped.append(True)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [(status, headers)]

        application: Any = self.server.get_app()  # type: ignore[attr-defined]
        chunks = application(environ, start_response)
        try:
            body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        if dropped:
            self.close_connection = True
        else:
            self._answer(*started[0], body)

    do_GET = do_HEAD = do_OPTIONS = do_POST = do_PUT = do_PATCH = do_DELETE = _run

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # what is left unread must not be taken for a request
            return b""
        return self.rfile.read(int(length))

    def _answer(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        declared = None
        for name, value in headers:
            self.send_header(name, value)
            declared = value if name.lower() == "content-length" else declared
        if not any(name.lower() == "date" for name, _ in headers):
            now: float = self.server.clock()  # type: ignore[attr-defined]
            self.send_header("Date", formatdate(now, usegmt=True))
        has_body = self.command != "HEAD" and int(code) not in _WITHOUT_BODY
        if has_body and declared is None:
            self.send_header("Content-Length", str(len(body)))
        elif has_body and declared != str(len(body)):
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if has_body:
            self.wfile.write(body)
