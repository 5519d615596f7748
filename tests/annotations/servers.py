"""Servers on loopback whose answers a test sets byte by byte, as no HTTP library would send them."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from tests.api_description import sent_messages

Step = bytes | Callable[["Peer"], None]
"""What is done with a request: bytes to answer and keep the connection, or an act after which it is closed."""


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return a complete answer; `retry_after="1"` becomes `Retry-After: 1`."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Peer:
    """The server's end of a connection, as a step uses it."""

    socket: socket.socket
    stopping: threading.Event
    gone: threading.Event = field(default_factory=threading.Event)
    sent: int = 0

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)
        self.sent += len(data)

    def drip(self, data: bytes, every: float = 0.05) -> None:
        """Send a byte now and then until the client closes the connection."""
        for byte in data:
            if self.stopping.wait(every):
                return
            self.send(bytes([byte]))

    def pour(self, data: bytes, times: int) -> None:
        for _ in range(times):
            self.send(data)

    def stall(self) -> None:
        self.stopping.wait(30)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Server:
    """Runs the next step for each request and repeats the last one. A context manager that ends all its threads."""

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.peers: list[Peer] = []
        self._steps: Sequence[Step] = steps
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self.refuse()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def refuse(self) -> None:
        """Refuse further connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self.connections += 1
                self._start(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError, ValueError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                accepted = self._tls.wrap_socket(accepted, server_side=True)
            peer = Peer(accepted, self._stopping)
            self.peers.append(peer)
            try:
                self._converse(peer)
            finally:
                accepted.close()
                peer.gone.set()

    def _converse(self, peer: Peer) -> None:
        with peer.socket.makefile("rb") as stream:
            for request in _requests(stream):
                with self._lock:
                    step = self._steps[min(len(self.requests), len(self._steps) - 1)]
                    self.requests.append(request)
                sent_messages.observe(request.method, request.path, request.headers, request.body)
                if not isinstance(step, bytes):
                    step(peer)
                    return
                peer.send(step)


def _requests(stream: BinaryIO) -> Iterator[Request]:
    while line := stream.readline():
        method, path, _ = line.decode().split(" ")
        headers: dict[str, str] = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, value = line.decode().rstrip("\r\n").split(": ", 1)
            headers[name.lower()] = value
        yield Request(method, path, headers, stream.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """Yield the port of a listener that neither accepts nor refuses further connections."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
