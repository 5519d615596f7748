"""A bad network between the dispatcher and the annotations service: a proxy that breaks connections in named ways."""

import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Self

Fault = str
FAULTS: tuple[Fault, ...] = ("reset", "stall", "half an answer", "answer lost", "drip", "refuse to read")
BEFORE_THE_SERVER = ("reset", "stall", "refuse to read")
WITHIN_THE_REQUEST: tuple[Fault, ...] = ("reset midway", "stall midway")
"""Faults of an upload: some of its body is read, and then nothing more."""

BUSY: Fault = "busy"
BUSY_ANSWER = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
STALL_SECONDS = 30.0
DRIP_SECONDS = 0.05


class Proxy:
    """Listens on a free port and forwards to `target`; each request meets the next fault of the plan, or none.

    Once the plan is used up everything passes.
    """

    def __init__(self, target: int, plan: Sequence[Fault | None]) -> None:
        self._target = target
        self._plan = list(plan)
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.met: list[Fault] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for connection in self._open:
                _shut(connection)
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            with self._guard:
                self._open.add(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        with client, server:
            try:
                while head := _read_head(client):
                    fault = self._next_fault()
                    if fault in WITHIN_THE_REQUEST:
                        self._break(client, fault)
                        return
                    request = _read_body(client, head)
                    if not request or not self._exchange(client, server, request, fault):
                        return
            except OSError:
                return
            finally:
                with self._guard:
                    self._open.discard(client)

    def _exchange(self, client: socket.socket, server: socket.socket, request: bytes, fault: Fault | None) -> bool:
        """One request and its answer; False where the connection is to end."""
        if fault in BEFORE_THE_SERVER:
            self._break(client, fault)
            return False
        if fault == BUSY:
            client.sendall(BUSY_ANSWER)
            return True
        server.sendall(request)
        answer = _read_head(server)
        if not request.startswith(b"HEAD "):
            answer = _read_body(server, answer)
        if fault == "drip":
            self._drip(client, answer)
        elif fault == "half an answer":
            client.sendall(answer[: len(answer) // 2])
        elif fault != "answer lost":
            client.sendall(answer)
        return fault in (None, "drip")

    def _break(self, client: socket.socket, fault: Fault) -> None:
        if fault.startswith("stall"):
            self._closing.wait(STALL_SECONDS)
        elif fault.startswith("reset"):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _drip(self, client: socket.socket, answer: bytes) -> None:
        for byte in answer:
            client.sendall(bytes([byte]))
            self._closing.wait(DRIP_SECONDS)

    def _next_fault(self) -> Fault | None:
        with self._guard:
            fault = self._plan.pop(0) if self._plan else None
            if fault:
                self.met.append(fault)
            return fault


def mixed_plan(length: int, seed: int) -> list[Fault | None]:
    """Every other request meets a fault."""
    chance = random.Random(seed)
    return [chance.choice(FAULTS) if chance.random() < 0.5 else None for _ in range(length)]


def _read_head(connection: socket.socket) -> bytes:
    """A head with whatever of the body came along; empty where the other side has ended."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return b""
        received += more
    return received


def _read_body(connection: socket.socket, received: bytes) -> bytes:
    """The whole message that begins so; empty where the other side ended before."""
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0] if lengths else 0) - len(body)
    deadline = time.monotonic() + 10
    while missing > 0 and time.monotonic() < deadline:
        more = connection.recv(65536)
        if not more:
            return b""
        received += more
        missing -= len(more)
    return received


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side has gone already
