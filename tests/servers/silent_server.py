"""PostgreSQL behind something that falls silent: a stopped machine, a hung disk, a balancer that forgot us."""

import socket
import threading
from contextlib import suppress

from sqlalchemy import make_url


class SilentServer:
    """Passes everything on to PostgreSQL until it is told to be silent: then it takes what comes and says nothing."""

    def __init__(self, url: str) -> None:
        self._server = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._sockets: list[socket.socket] = []
        self._speaks = threading.Event()
        self._speaks.set()
        self._ended = False
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        ours = self._server.set(host=host, port=port, query={"sslmode": "disable", "gssencmode": "disable"})
        return ours.render_as_string(hide_password=False)

    def hush(self) -> None:
        self._speaks.clear()

    def speak(self) -> None:
        self._speaks.set()

    def stop(self) -> None:
        self._ended = True
        self._speaks.set()
        for one in [self._listener, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(30)

    def _run(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{self._server.query['host']}/.s.PGSQL.{self._server.port or 5432}")
                self._sockets += [client, server]
                self._run(self._pass_on, client, server)
                self._run(self._pass_on, server, client)

    def _pass_on(self, giver: socket.socket, taker: socket.socket) -> None:
        with suppress(OSError):
            while data := giver.recv(65536):
                self._speaks.wait()
                if self._ended:
                    return
                taker.sendall(data)
            taker.shutdown(socket.SHUT_WR)
