"""A link to the service that breaks in the middle of a body: each byte passes on at once, until it is cut."""

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

_PIECE = 1 << 15


class CuttingProxy:
    """Listens on a free port and forwards to `target`, a port that may be changed.

    When so many bytes have gone to the service in all as the next of `cuts` says, the connection that carried the last
    one is reset; `on_cut` is called before another connection is let in. `hold_after` has one stand still instead.
    """

    def __init__(self, target: int, cuts: Sequence[int] = (), on_cut: Callable[[], None] | None = None) -> None:
        self.target = target
        self.passed = 0
        self.cuts = list(cuts)
        self._held_at: int | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self.on_cut = on_cut
        self._guard = threading.Lock()
        self._cutting = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut_all()
        for thread in self._threads:
            thread.join(30)

    def cut_after(self, count: int) -> None:
        """Cut the connection that carries the last one of so many more bytes."""
        with self._guard:
            self.cuts = [self.passed + count]

    def hold_after(self, count: int) -> None:
        """Have the connection that carries the last one of so many more bytes stand still."""
        with self._guard:
            self._held_at = self.passed + count

    @property
    def is_flowing(self) -> bool:
        """Whether no connection stands still."""
        return self._flowing.is_set()

    def release(self) -> None:
        """Let the connection that stands still go on, and none stop."""
        with self._guard:
            self._held_at = None
        self._flowing.set()

    def cut_all(self) -> None:
        """Reset every connection that is open."""
        with self._guard:
            for connection in self._open:
                _reset(connection)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with self._cutting:  # whoever comes while a cut is under way waits for its end
            pass
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            with self._guard:
                self._open |= {client, server}
            answers = threading.Thread(target=_forward, args=(server, client))
            answers.start()
            try:
                self._send(client, server)
            finally:
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                answers.join()
                with self._guard:
                    self._open -= {client, server}

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        while piece := client.recv(self._room()):
            server.sendall(piece)
            with self._guard:
                self.passed += len(piece)
                is_held = self._held_at is not None and self.passed >= self._held_at
                if is_held:
                    self._held_at = None
                    self._flowing.clear()
                is_cut = bool(self.cuts) and self.passed >= self.cuts[0]
                if is_cut:
                    self.cuts.pop(0)
            if is_cut:
                self._cut(client)
                return
            if is_held:
                self._flowing.wait(60)

    def _cut(self, client: socket.socket) -> None:
        with self._cutting:
            _reset(client)
            if self.on_cut:
                self.on_cut()

    def _room(self) -> int:
        with self._guard:
            return min(_PIECE, self.cuts[0] - self.passed) if self.cuts else _PIECE


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """Have the other end see a reset, and whoever reads here the end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
