"""One look at an issuer's published keys, bounded in time and size whatever the other side does.

`urllib` bounds each read and not the whole, follows proxies of the environment, and reads answers without end; so
this is http.client and a timer. Redirects are not followed: which keys are trusted is the setting's to say, not that
of whoever answers there.
"""

import http.client
import socket
import ssl
import threading
import time
from http import HTTPStatus
from urllib.parse import urlsplit

import certifi

MAX_BYTES = 256 * 1024
"""Hundreds of keys; issuers publish a few."""


def fetch_document(url: str, seconds: float) -> bytes:
    """The body of the answer to `GET url`, at most MAX_BYTES, read within about `seconds`.

    Raises OSError (unreachable, too slow, TLS), http.client.HTTPException or ValueError (not 200, or too long).
    """
    ends = time.monotonic() + seconds
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    try:
        connection.connect()
        cut = threading.Timer(max(0.0, ends - time.monotonic()), _cut, [connection.sock])
        cut.daemon = True  # a process that ends does not wait for it
        cut.start()
        try:
            return _ask(connection, parts._replace(scheme="", netloc="", fragment="").geturl() or "/")
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= ends:
                raise TimeoutError(f"no answer within {seconds:g} s") from error
            raise
        finally:
            cut.cancel()
            cut.join()
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None, timeout: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


def _ask(connection: http.client.HTTPConnection, target: str) -> bytes:
    connection.request("GET", target, headers={"Accept": "application/json", "Connection": "close"})
    with connection.getresponse() as response:
        if response.status != HTTPStatus.OK:
            raise ValueError(f"the answer is {response.status}, not 200")
        body = response.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise ValueError(f"the answer has more than {MAX_BYTES} bytes")
        if response.length:
            raise http.client.IncompleteRead(body, response.length)
        return body


def _cut(sock: socket.socket) -> None:
    """End every wait on this socket, in whichever thread."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # an SSLSocket's own would take its state from under the reader
    except OSError:
        return  # ended in the meantime
