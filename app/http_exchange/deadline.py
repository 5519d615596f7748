"""Requests with a deadline for the whole of each and a limit for the size of the response.

The timeouts of requests apply to each read, so a server that sends a byte now and then could hold a request for ever.
Here the socket has the deadline and the allowance: each operation gets the time that is left. No watchdog is needed
that could close a connection already used for another request.

No proxies, redirects, cookies, environment variables or retries are used.
"""

import http.client
import logging
import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from app.errors import SettingsError
from app.http_exchange.resolver import Resolver

MAX_RESPONSE_BYTES = 64 * 1024
HTTP = b"HTTP/"
FIRST_BYTES = 6
"""Bytes that are shown to people of a response that is not HTTP."""

_OTHERS = {b"\x15\x03": "TLS", b"\x16\x03": "TLS", b"\x00\x00": "HTTP/2", b"SSH-": "SSH", b"220 ": "SMTP or FTP"}

# urllib3 logs headers that it cannot parse, and a server may echo the token in them.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class ResponseTooLong(OSError):
    """The response is longer than its session reads; the rest is not read."""


class NotHTTP(OSError):
    """The server does not speak HTTP, or switches to another protocol."""


@dataclass(slots=True)
class RequestState:
    """The limits and the progress of the current request, which its socket updates and its client reads."""

    max_bytes: int = MAX_RESPONSE_BYTES  # of a response, including its head
    ends_at: float = 0.0  # on the monotonic clock
    allowance: int = MAX_RESPONSE_BYTES
    connected_anew: bool = False
    sent: bool = False  # a byte of the request may have left
    received: int = 0
    first_bytes: bytes = b""  # of the response
    ended: bool = False  # the other side has closed its end

    def begin(self) -> None:
        """Begin another request within the same deadline."""
        self.allowance = self.max_bytes
        self.connected_anew = self.sent = self.ended = False
        self.received = 0
        self.first_bytes = b""

    def note_received(self, beginning: memoryview, count: int) -> None:
        """Note that `count` bytes arrived, which start with `beginning`. Raises NotHTTP if they cannot be HTTP."""
        self.allowance -= count
        self.received += count
        self.ended = count == 0
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += bytes(beginning[: FIRST_BYTES - len(self.first_bytes)])
            begins = self.first_bytes[: len(HTTP)]
            if begins != HTTP[: len(begins)]:
                raise NotHTTP(f"the answer is not HTTP (begins {_named(self.first_bytes)})")

    def time_left(self, until: float | None = None) -> float:
        """Return the seconds until the deadline, or until `until` if sooner; raise TimeoutError after it."""
        left = (self.ends_at if until is None else min(until, self.ends_at)) - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of another service; `base` is the prefix of its paths, without a trailing slash."""

    scheme: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str, setting: str) -> "Endpoint":
        """Parse the value of a setting. Raises SettingsError unless it is a plain http or https URL."""
        try:
            parts = urlsplit(requests.Request("GET", url).prepare().url or "")
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            (parts.hostname or "").encode("idna")  # the system's resolver would fail at each request
        except (requests.RequestException, ValueError, KeyError) as error:
            raise SettingsError(f"{setting} must be an http:// or https:// URL with a proper host.") from error
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise SettingsError(f"{setting} must be a host and a path, without user, query and fragment.")
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def origin(self) -> str:
        """The scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class DeadlineSession(HTTPAdapter):
    """Requests to one endpoint over one connection, for one thread. Set `state.ends_at`, then send.

    `connect_timeout` is in seconds, `max_bytes` the most that is read of a response, including its head. An adapter
    without a requests.Session, whose redirects, cookies, hooks and settings of the environment are not wanted here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        resolver: Resolver,
        connect_timeout: float,
        tls: ssl.SSLContext | None,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        super().__init__(max_retries=0)
        self.endpoint = endpoint
        self.state = RequestState(max_bytes=max_bytes, allowance=max_bytes)
        dialer = _Dialer(self.state, resolver, connect_timeout)
        self._pool: HTTPConnectionPool = (
            _TLSPool(endpoint.host, endpoint.port, maxsize=1, ssl_context=tls, dialer=dialer)
            if endpoint.scheme == "https"
            else _Pool(endpoint.host, endpoint.port, maxsize=1, dialer=dialer)
        )

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Return the one pool, so that no proxy and no other host is used."""
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the pool's TLS context has the authorities; loading them for each connection takes 20 ms."""

    def close(self) -> None:
        """Close the connection; a later request opens a new one."""
        self._pool.close()
        super().close()


def create_tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of the system, of certifi and in `ca_file`."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if ca_file:
        context.load_verify_locations(ca_file)
    context.sslsocket_class = _TLSSocket
    return context


class _Socket(socket.socket):
    state: RequestState

    def recv_into(self, buffer: Any, nbytes: int | None = 0, flags: int = 0) -> int:
        state = self.state
        if state.allowance <= 0:
            raise ResponseTooLong(f"the answer is longer than {state.max_bytes} bytes")
        self.settimeout(state.time_left())
        count = super().recv_into(buffer, min(nbytes or len(buffer), state.allowance), flags)
        state.note_received(memoryview(buffer)[: min(count, FIRST_BYTES)], count)
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.settimeout(self.state.time_left())
        self.state.sent = True
        super().sendall(data, flags)


class _TLSSocket(_Socket, ssl.SSLSocket):
    pass


@dataclass(frozen=True, slots=True)
class _Dialer:
    """Makes the connections of one session. Resolving, connecting and the TLS handshake share `connect_timeout`."""

    state: RequestState
    resolver: Resolver
    connect_timeout: float

    def dial(self, host: str, port: int, options: Any) -> socket.socket:
        self.state.connected_anew = True
        until = monotonic() + self.connect_timeout
        addresses = self.resolver.resolve(host, port, self.state.time_left(until))
        failure = OSError("the name has no address")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            # Each address gets an equal share of the time, so that one that never answers does not use up all of it.
            share = self.state.time_left(until) / (len(addresses) - position)
            made = _Socket(family, kind, protocol)
            try:
                made.settimeout(share)
                for option in options or ():
                    made.setsockopt(*option)
                made.connect(address)
                made.settimeout(self.state.time_left(until))
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        raise failure


class _Response(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        """Read the status of the final response; http.client itself skips no other interim response than 100."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status // 100 != 1 or status in (http.HTTPStatus.CONTINUE, http.HTTPStatus.SWITCHING_PROTOCOLS):
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Connection(HTTPConnection):
    response_class = _Response

    def __init__(self, *args: Any, dialer: _Dialer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dialer = dialer

    def _new_conn(self) -> socket.socket:
        return self._dialer.dial(self._dns_host, self.port, self.socket_options)

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, _Socket), "a socket without a deadline"
        self.sock.state = self._dialer.state

    def getresponse(self) -> Any:
        response = super().getresponse()
        if self._dialer.state.ended:  # http.client takes an end inside the head for the end of the head
            response.close()
            raise http.client.RemoteDisconnected("the answer ends inside its head")
        if response.status < http.HTTPStatus.OK:
            response.close()
            raise NotHTTP(f"the answer switches to another protocol ({response.status})")
        return response


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def _named(first_bytes: bytes) -> str:
    """Describe bytes for people: as text if they are printable, else in hex, with the protocol that they suggest."""
    protocol = next((name for start, name in _OTHERS.items() if first_bytes.startswith(start)), None)
    text = first_bytes.decode("ascii", "replace")
    shown = repr(text.strip()) if text.strip().isprintable() and text.isascii() else first_bytes[:6].hex(" ")
    return f"{shown}: {protocol}?" if protocol else shown
