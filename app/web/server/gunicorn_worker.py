"""gunicorn's gthread worker, with the holes closed through which a few clients stop a whole process, and with its
refusals told as problems.

A thread is given to a request once its head has arrived, not before: gthread reads the head in the thread, so as many
clients as there are threads, each stopping inside its head, leave none. An answer holds its thread until the kernel has
taken it only where its request holds a slot; what others' readers are slow to take, the main loop sends. And nobody is
lingered on but in the main loop's poller: gthread drains a connection that it closes for up to 2 s while the loop
stands still, which forty clients that keep theirs open turn into more than a minute without an answer to anybody.
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
from app.web.upload.receive_timeouts import ReaderPace

HEAD_BYTES = 64 * 1024
"""Longest head that is waited for. gunicorn.conf.py's limits on the line and the fields lie below."""

_USUAL_HEAD_BYTES = 4 * 1024
_BEAT_SECONDS = 0.5
_HEAD_END = b"\r\n\r\n"


class HeadFirstWorker(GthreadWorker):
    """gthread, with heads awaited, slow answers sent and closed connections lingered on in the main loop.

    Heads under TLS cannot be seen from outside, and Unix sockets cannot be told to wait for more: both are read in a
    thread, as gthread does, within the listening socket's SO_RCVTIMEO.
    """

    _beat = -math.inf

    head_seconds = 10.0
    """A head is one or two packets: the slowest link that can carry an upload brings it within this."""

    reader_pace: Callable[[], ReaderPace] = ReaderPace
    """Makes the pace of one answer's reader."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # .head: what was seen of the head that this thread serves; .refused: gunicorn itself refused the request
        self._serving = threading.local()

    def run(self) -> None:
        """Serve until told to stop."""
        self._drain = AnswerDrain(self.poller)
        self._lingering = Lingering(self.poller)
        super().run()

    def notify(self) -> None:
        """Beat twice a second at most, often enough for any `timeout`: gthread does so twice for each request."""
        now = time.monotonic()
        if now - self._beat >= _BEAT_SECONDS:
            self._beat = now
            super().notify()

    def enqueue_req(self, conn: Any) -> None:
        """Hand a readable connection to a thread, if a whole head is there; otherwise wait for more of it."""
        if self.cfg.is_ssl or conn.sock.family == socket.AF_UNIX:
            super().enqueue_req(conn)
            return
        buffered = self.buffered(conn)
        try:
            arrived, is_complete = _look_for_head(conn.sock, buffered)
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
        """Serve one request; when the connection is to be closed, note whether its client may still be sending."""
        self._serving.head = conn.__dict__.pop("head", b"")
        self._serving.refused = False
        keep = super().handle(conn)
        conn.unread = self._unread(conn) if keep is False else 0
        if keep is False and not conn.unread:
            _stop_reading(conn.sock)  # so that gthread's drain ends at once
        return keep

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a parsed request, with an answer that waits for its reader only where it holds a slot."""
        conn.answer = answer_socket(conn.sock, self.reader_pace())
        return super().handle_request(req, self.answering_to(conn, conn.answer))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Let go of a connection once its whole answer has been sent."""
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
        """What gthread does at each turn of its loop, and cut off who reads too slowly or sends for too long."""
        super().murder_pending()
        self._drain.cut_off_late()
        self._lingering.close_late()

    def _answered(self, conn: Any, fs: Any) -> None:
        if unread := conn.__dict__.pop("unread", 0):
            self._lingering.add(conn.sock, unread, closed=partial(self.drop, conn))
        else:
            super().finish_request(conn, fs)

    def _unread(self, conn: Any) -> int:
        """How many bytes may still come that a reset would answer, and whose arrival the main loop can wait for."""
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
        """Log as gunicorn does, and answer with the status that it chose, but as a problem."""
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
            # Readable without more to read: the client has closed its side.
            self.drop(conn)
            return
        conn.head_arrived = arrived
        # Readable again only when there is more than what has been looked at, or the loop would spin.
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, arrived + 1)
        self.await_more(conn, conn.head_deadline)


def _look_for_head(sock: socket.socket, buffered: bytes) -> tuple[bytes, bool]:
    """What is there to be read, and whether a head ends in it. A look at all that may be there would copy
    tens of kilobytes of each upload, so that is the second one."""
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
        # The client has gone already.
        return
