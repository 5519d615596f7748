"""A client for misbehaviour: it sends exactly the given bytes."""

import json
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

TOKEN = b"Authorization: Bearer good\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def slow_connection(port: int, *, address: str = "127.0.0.1") -> socket.socket:
    """Connect from that address, with small receive and send buffers on both sides."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        sock.settimeout(20)
        sock.bind((address, 0))
        sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


NO_CONTENT = 204


class RawClient:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send the bytes. A server that has already closed is no error; its response can still be read."""
        try:
            self.sock.sendall(data)
        except ConnectionError:
            return

    def end(self) -> None:
        """Stop sending, like a truncated client, but keep reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def line(self) -> bytes:
        """Return the next line without its end; empty at the end of the connection."""
        while b"\r\n" not in self._received:
            if not self._receive():
                return b""
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def answer(self) -> Answer:
        status = int(self.line().split()[1])
        head = []
        while line := self.line():
            head.append(line.lower())
        told = (int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:"))
        length = 0 if status == NO_CONTENT else next(told)
        return Answer(status, b"\n".join(head), self.take(length))

    def take(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end of the connection."""
        while len(self._received) < length and self._receive():
            pass
        taken, self._received = self._received[:length], self._received[length:]
        return taken

    def everything(self) -> bytes:
        """Return all bytes until the server closes."""
        while self._receive():
            pass
        everything, self._received = self._received, b""
        return everything

    def receive(self, most: int) -> int:
        """Read at most that many bytes, discard them and return their number, 0 at the end of the connection."""
        try:
            return len(self.sock.recv(most))
        except ConnectionError:
            return 0

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            return b""
        self._received += data
        return data
