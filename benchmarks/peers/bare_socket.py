"""The least that Python can do with an upload: recv into a buffer, write it out. python -m … FOLDER [--fsync]"""

import os
import socket
import sys
import threading
from pathlib import Path

BUFFER_BYTES = 1 << 20
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


def serve(folder: Path, *, fsync: bool) -> None:
    """Answer on a free port, which is printed first."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=_answer, args=(connection, folder, fsync), daemon=True).start()


def _answer(connection: socket.socket, folder: Path, fsync: bool) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with connection:
        while head := _head(connection):
            fields, _, begun = head.partition(b"\r\n\r\n")
            length = int(fields.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            _take(connection, folder / f"upload-{threading.get_ident()}", begun, length, buffer, fsync=fsync)
            connection.sendall(CREATED)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            return b""
        head += received
    return head


def _take(connection: socket.socket, path: Path, begun: bytes, length: int, buffer: memoryview, *, fsync: bool) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(file, begun)
        left = length - len(begun)
        while left:
            received = connection.recv_into(buffer, min(left, BUFFER_BYTES))
            if not received:
                break
            os.write(file, buffer[:received])
            left -= received
        if fsync:
            os.fsync(file)
    finally:
        os.close(file)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), fsync="--fsync" in sys.argv)
