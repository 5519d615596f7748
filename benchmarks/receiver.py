"""A receiver that says 200 to everything as fast as Python can, in a process of its own: the dispatcher's peer."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PRINTING = threading.Lock()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


def serve() -> None:
    """Answer on a free port, printed first; each request's arrival is printed as `<media id> <seconds>`."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    quiet = "--quiet" in sys.argv
    while True:
        connection, _address = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection, quiet), daemon=True).start()


def _answer(connection: socket.socket, quiet: bool) -> None:
    buffered = b""
    while True:
        head, found, rest = buffered.partition(b"\r\n\r\n")
        if not found:
            received = connection.recv(65536)
            if not received:
                return
            buffered += received
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if b"ontent-" in head else 0
        while len(rest) < length:
            rest += connection.recv(65536)
        if not quiet:
            path = head.split(b"\r\n")[0].split(b" ")[1].decode()
            with _PRINTING:  # print() writes a line in pieces
                print(path, rest[:length].decode(), time.time(), flush=True)
        buffered = rest[length:]
        connection.sendall(ANSWER)


@contextmanager
def receiver(*, quiet: bool = True) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a running receiver, and its process to read arrivals from."""
    command = [sys.executable, "-m", "benchmarks.receiver", *(["--quiet"] if quiet else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    serve()
