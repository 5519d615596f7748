"""A link that breaks: a proxy on a free port of this machine that cuts each connection after so many bytes."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

_PIECE = 64 * 1024


class CuttingProxy:
    """Forwards to `port` of this machine. A connection that has brought `bytes_each` bytes is cut: its client sees
    a reset, the server an end. After `cuts` of them no more are. `sent` counts all bytes that came from clients."""

    def __init__(self, port: int, bytes_each: int, cuts: int) -> None:
        self._port = port
        self._bytes_each = bytes_each
        self._cuts = cuts
        self.cut = 0
        self.sent = 0
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def point_to(self, port: int) -> None:
        """Forward new connections to another port: the service has begun anew there."""
        self._port = port

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:  # it is away; the client comes again
                client.close()
                continue
            with self._guard:
                self._open |= {client, server}
            self._spawn(self._forward, client, server)
            self._spawn(self._answer, server, client)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        brought = 0
        with suppress(OSError):
            while data := client.recv(_PIECE):
                server.sendall(data)
                brought += len(data)
                with self._guard:
                    self.sent += len(data)
                    if brought >= self._bytes_each and self.cut < self._cuts:
                        self.cut += 1
                        break
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.shutdown(socket.SHUT_RDWR)
        client.close()
        with suppress(OSError):  # what the client could send before the link broke arrives
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_PIECE):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        server.close()
        with self._guard:
            self._open -= {client, server}
