"""The least that Python can do with an upload: recv into a buffer, write it out.

python -m benchmarks.peers.bare_socket FOLDER [--fsync] [--duties]: with duties also what ours cannot do without, in as
few steps: pieces as large, each searched for a form's boundary and hashed. Both keep a form as it comes.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from app.media.checksum import new_checksum
from app.web.upload.memmem import find
from app.web.upload.receive_batching import AFTER_BYTES, GATHERED_BYTES
from app.web.upload.request_body import READ_SIZE

BUFFER_BYTES = 1 << 20
BOUNDARY = b"\r\n--------------------------0123456789abcdefghijkl"
Take = Callable[[socket.socket, int, bytes, int], None]
"""Takes in a body of which some bytes have come: from a connection, into an open file, so many in all."""
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


def serve(folder: Path, take: Take, *, fsync: bool) -> None:
    """Answer on a free port, which is printed first."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=_answer, args=(connection, folder, take, fsync), daemon=True).start()


def _answer(connection: socket.socket, folder: Path, take: Take, fsync: bool) -> None:
    with connection:
        while head := _head(connection):
            fields, _, begun = head.partition(b"\r\n\r\n")
            length = int(fields.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            file = os.open(folder / f"upload-{threading.get_ident()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                take(connection, file, begun, length)
                if fsync:
                    os.fsync(file)
            finally:
                os.close(file)
            connection.sendall(CREATED)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            return b""
        head += received
    return head


def received(connection: socket.socket, file: int, begun: bytes, length: int) -> None:
    """As the bytes come."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    os.write(file, begun)
    left = length - len(begun)
    while left:
        received = connection.recv_into(buffer, min(left, BUFFER_BYTES))
        if not received:
            break
        os.write(file, buffer[:received])
        left -= received


def received_with_duties(connection: socket.socket, file: int, begun: bytes, length: int) -> None:
    """In large pieces, each searched and hashed."""
    buffer, checksum = memoryview(bytearray(READ_SIZE)), new_checksum()
    os.write(file, begun)
    checksum.update(begun)
    left = length - len(begun)
    while left:
        gathers = length - left > AFTER_BYTES and left > GATHERED_BYTES
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHERED_BYTES if gathers else 1)
        received = connection.recv_into(buffer, min(left, READ_SIZE))
        if not received:
            break
        piece = buffer[:received]
        find(piece, BOUNDARY)
        os.write(file, piece)
        checksum.update(piece)
        left -= received


if __name__ == "__main__":
    serve(Path(sys.argv[1]), received_with_duties if "--duties" in sys.argv else received, fsync="--fsync" in sys.argv)
