"""gunicorn's gthread worker, protected against clients that would block a whole process, with refusals as problems.

- A request gets a thread only when its head is complete. gthread reads the head in the thread, so clients that stop
  inside their heads could occupy every thread.
- A response occupies its thread only if its request holds a slot. The main loop sends the rest of all others to clients
  that read slowly.
- Closed connections linger in the main loop's poller. gthread drains each one for up to 2 s and serves nobody
  meanwhile, so forty clients that keep theirs open could stop it for more than a minute.
"""

import math
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from app.web import cors
from app.web.server.answer_drain import AnswerDrain
from app.web.server.answer_socket import AnswerSocket, answer_socket
from app.web.server.gunicorn_internals import GthreadWorker, is_off_the_connection, unread_bytes
from app.web.server.lingering import LINGER_BYTES, Lingering
from app.web.server.server_refusals import refusal
from app.web.upload.receive_timeouts import SendTimeouts

HEAD_BYTES = 64 * 1024
"""The longest head, in bytes. The limits on its line and fields in gunicorn.conf.py are lower."""

_USUAL_HEAD_BYTES = 4 * 1024
_HEARTBEAT_SECONDS = 0.5
_HEAD_END = b"\r\n\r\n"


class HeadFirstWorker(GthreadWorker):
    """gthread whose main loop waits for heads, sends slow responses, and keeps closed connections while they linger.

    Heads over TLS are encrypted before they are read, and Unix sockets have no SO_RCVLOWAT. Both are read in a thread,
    as in gthread, within the listening socket's SO_RCVTIMEO.
    """

    _last_heartbeat = -math.inf

    head_seconds = 10.0
    """Seconds for a whole head. A head is one or two packets, so any link that can carry an upload is fast enough."""

    send_timeouts: Callable[[], SendTimeouts] = SendTimeouts
    """Creates the timeouts of one response."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # .head: the head of the request that this thread serves; .refused: gunicorn itself refused the request
        self._serving = threading.local()

    def run(self) -> None:
        """Serve until the worker is stopped."""
        self._drain = AnswerDrain(self.poller)
        self._lingering = Lingering(self.poller)
        super().run()

    def notify(self) -> None:
        """Send a heartbeat at most twice a second, enough for any `timeout`; gthread sends two for each request."""
        now = time.monotonic()
        if now - self._last_heartbeat >= _HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            super().notify()

    def enqueue_req(self, conn: Any) -> None:
        """Give a readable connection to a thread if the head is complete; otherwise wait for the rest."""
        if self.cfg.is_ssl or conn.sock.family == socket.AF_UNIX:
            super().enqueue_req(conn)
            return
        buffered = self.buffered(conn)
        try:
            arrived, is_complete = _peek_at_head(conn.sock, buffered)
        except OSError:
            self.drop(conn)
            return
        if is_complete:
            conn.head = buffered + arrived
            conn.head_deadline = None
            conn.data_ready = True
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            super().enqueue_req(conn)
        elif len(buffered) + len(arrived) >= HEAD_BYTES:
            self.write_at_once(
                conn.sock,
                self._refusal(431, f"The head has {HEAD_BYTES} bytes or more.", conn.client, buffered + arrived),
            )
            self._lingering.add(conn.sock, LINGER_BYTES, closed=partial(self.drop, conn))
        else:
            self._await_head(conn, len(arrived))

    def handle(self, conn: Any) -> Any:
        """Serve one request. If the connection is to be closed, note whether its client may still be sending."""
        self._serving.head = conn.__dict__.pop("head", b"")
        self._serving.refused = False
        keep = super().handle(conn)
        conn.unread = self._unread(conn) if keep is False else 0
        if keep is False and not conn.unread:
            _stop_reading(conn.sock)  # so that gthread's drain ends at once
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a parsed request; its response waits for the client only if the request holds a slot."""
        conn.answer = answer_socket(conn.sock, self.send_timeouts())
        return super().handle_request(req, self.answering_to(conn, conn.answer))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Release a connection after its whole response has been sent."""
        answer: AnswerSocket | None = conn.__dict__.pop("answer", None)
        if answer is None or not answer.has_rest:
            self._answered(conn, fs)
            return
        self._drain.add(
            conn.sock,
            _address(conn.client),
            answer,
            then=partial(self._answered, conn, fs),
            dropped=partial(self.drop, conn),
        )

    def murder_pending(self) -> None:
        """Close idle connections, as gthread does in each iteration, and clients that read or send too slowly."""
        super().murder_pending()
        self._drain.cut_off_late()
        self._lingering.close_late()

    def _answered(self, conn: Any, fs: Any) -> None:
        if unread := conn.__dict__.pop("unread", 0):
            self._lingering.add(conn.sock, unread, closed=partial(self.drop, conn))
        else:
            super().finish_request(conn, fs)

    def _unread(self, conn: Any) -> int:
        """Return how many bytes to read after the response, because unread bytes would make the kernel send a reset."""
        if self.cfg.is_ssl:
            return 0
        if self._serving.refused:
            return LINGER_BYTES
        body = self.body_of(conn)
        if body is None or is_off_the_connection(body):
            return 0
        unread = unread_bytes(body)
        return LINGER_BYTES if unread is None else unread

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log an error as gunicorn does, and respond with its status in a problem document."""
        self._serving.refused = True
        status = self.log_error(req, addr, exc)
        self.write_at_once(client, self._refusal(status, str(exc), addr, getattr(self._serving, "head", b"")))

    def _refusal(self, status: int, detail: str, addr: Any, head: bytes) -> bytes:
        policy = getattr(self.wsgi, "extensions", {}).get(cors.EXTENSION)
        return refusal(status, detail, client=_address(addr), head=head, policy=policy)

    def _await_head(self, conn: Any, arrived: int) -> None:
        if getattr(conn, "head_deadline", None) is None:
            conn.head_deadline = time.monotonic() + self.head_seconds
        elif arrived == conn.head_arrived:
            # Readable without new bytes: the client has closed its side.
            self.drop(conn)
            return
        conn.head_arrived = arrived
        # Readable again only with more bytes than before, or the loop would spin.
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, arrived + 1)
        self.await_more(conn, conn.head_deadline)


def _peek_at_head(sock: socket.socket, buffered: bytes) -> tuple[bytes, bool]:
    """Return the received bytes without consuming them, and whether they complete the head.

    The first attempt is small, because a copy of everything received would be tens of kilobytes of each upload.
    """
    arrived, is_complete = b"", False
    for size in (_USUAL_HEAD_BYTES, HEAD_BYTES):
        arrived = _peek(sock, size)
        is_complete = _HEAD_END in buffered + arrived
        if is_complete or len(arrived) < size:
            break
    return arrived, is_complete


def _peek(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def _address(addr: Any) -> str:
    return addr[0] if isinstance(addr, tuple) else ""


def _stop_reading(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        # The client is gone.
        return
