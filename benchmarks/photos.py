"""Many clients that each send one photo after the other, in a process of their own: python -m … URL COUNT CLIENTS [KEY]

Every photo is a new one of 200 kB; the request is a form on a connection that is kept open. Prints photos a second.
"""

import os
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

PHOTO_BYTES = 200_000
BOUNDARY = b"a-boundary-that-no-photo-holds"


def send(url: str, count: int, clients: int, token: str = "") -> float:
    """Send `count` photos by `clients` connections at once; returns photos a second."""
    numbers = iter(range(count))
    guard = threading.Lock()
    refused: list[bytes] = []

    def client() -> None:
        try:
            send_photos()
        except OSError as error:
            refused.append(str(error).encode())

    def send_photos() -> None:
        request, unique = _request(url, token)
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                with guard:
                    if next(numbers, None) is None:
                        return
                request[unique : unique + 16] = os.urandom(16)
                connection.sendall(request)
                answer = _answer(connection)
                if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                    refused.append(answer)
                    return

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    if refused:
        raise RuntimeError(f"a photo was refused: {refused[0]!r}")
    return count / taken


def _request(url: str, token: str) -> tuple[bytearray, int]:
    """One request, and where in it the bytes stand that make each photo another one."""
    parts = urlsplit(url)
    opening = (
        b"--%b\r\nContent-Disposition: form-data; name=file; filename=photo.jpg\r\nContent-Type: image/jpeg\r\n\r\n"
        % BOUNDARY
    )
    photo = b"\xff\xd8\xff\xe0" + os.urandom(PHOTO_BYTES - 4)
    body = opening + photo + b"\r\n--%b--\r\n" % BOUNDARY
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    return bytearray(head + body), len(head) + len(opening) + 4


def _answer(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + body


if __name__ == "__main__":
    print(send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
