"""requests with a deadline: one send ends in time and reads no more than it may, whatever the other side does.

The timeouts of requests are per read, so a server that drips a byte now and then holds a send for ever. Here the
socket itself knows when the send must be over and how much of the answer may still be read: each operation gets the
time that is left. That needs no watchdog, so nothing can hit a connection that another send has taken meanwhile.

No proxies, no redirects, no cookies, nothing from the environment, no retries: each would send something somewhere
that the caller has not asked for.
"""

import http.client
import logging
import socket
import ssl
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from app.errors import SettingsError
from app.http_exchange.resolver import Resolver

MAX_ANSWER_BYTES = 64 * 1024
HTTP = b"HTTP/"
FIRST_BYTES = 6
"""So many bytes of an answer that is not HTTP are shown to people."""

_OTHERS = {b"\x15\x03": "TLS", b"\x16\x03": "TLS", b"\x00\x00": "HTTP/2", b"SSH-": "SSH", b"220 ": "SMTP or FTP"}

# urllib3 warns of headers that it cannot parse with their text, and a server may echo our token in them.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class AnswerTooLong(OSError):
    """More was sent in answer than may be read; the rest stays unread."""


class NotHTTP(OSError):
    """What answers does not speak HTTP, or wants to speak something else from now on."""


@dataclass(slots=True)
class Exchange:
    """What the send under way may still use and what has become of it: written by its socket, read by its client."""

    most_bytes: int = MAX_ANSWER_BYTES  # of an answer, its head included
    ends_at: float = 0.0  # on the monotonic clock
    allowance: int = MAX_ANSWER_BYTES
    connected_anew: bool = False
    sent: bool = False  # a byte of the request may have left
    received: int = 0
    first_bytes: bytes = b""  # of the answer
    ended: bool = False  # the other side has closed its end

    def begin(self) -> None:
        """A new send, within the same deadline."""
        self.allowance = self.most_bytes
        self.connected_anew = self.sent = self.ended = False
        self.received = 0
        self.first_bytes = b""

    def take_note(self, beginning: memoryview, count: int) -> None:
        """Note that so many bytes came, which begin so. Raises NotHTTP as soon as the answer cannot be HTTP."""
        self.allowance -= count
        self.received += count
        self.ended = count == 0
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += bytes(beginning[: FIRST_BYTES - len(self.first_bytes)])
            begins = self.first_bytes[: len(HTTP)]
            if begins != HTTP[: len(begins)]:
                raise NotHTTP(f"the answer is not HTTP (begins {_named(self.first_bytes)})")

    def time_left(self, until: float | None = None) -> float:
        """Seconds until the deadline (or `until`, if that is sooner); raises TimeoutError when it has passed."""
        left = (self.ends_at if until is None else min(until, self.ends_at)) - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where another service is. `base` is the path that all its paths begin with, without a last slash."""

    scheme: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str, setting: str) -> "Endpoint":
        """Raises SettingsError, which names the setting, for what is not a plain http or https URL."""
        try:
            parts = urlsplit(requests.Request("GET", url).prepare().url or "")
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            (parts.hostname or "").encode("idna")  # the system's resolver does so, and would fail at each send
        except (requests.RequestException, ValueError, KeyError) as error:
            raise SettingsError(f"{setting} must be an http:// or https:// URL with a proper host.") from error
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise SettingsError(f"{setting} must be a host and a path, without user, query and fragment.")
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class DeadlineSession(requests.Session):
    """A Session to one endpoint, with one connection, for one thread. Set `exchange.ends_at`, then send."""

    def __init__(
        self,
        endpoint: Endpoint,
        resolver: Resolver,
        connect_timeout: float,
        tls: ssl.SSLContext | None,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.trust_env = False
        self.cookies = RequestsCookieJar(policy=DefaultCookiePolicy(allowed_domains=()))
        self.exchange = Exchange(most_bytes=most_bytes, allowance=most_bytes)
        dialer = _Dialer(self.exchange, resolver, connect_timeout)
        pool: HTTPConnectionPool = (
            _TLSPool(endpoint.host, endpoint.port, maxsize=1, ssl_context=tls, dialer=dialer)
            if endpoint.scheme == "https"
            else _Pool(endpoint.host, endpoint.port, maxsize=1, dialer=dialer)
        )
        self.adapters.clear()
        self.mount(f"{endpoint.scheme}://", _OnePool(pool))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None, always: even unfollowed redirects would be read whole and decoded by requests."""
        return None


def trusting_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Checks certificates against the system's authorities, those that requests brings, and those in `ca_file`."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if ca_file:
        context.load_verify_locations(ca_file)
    context.sslsocket_class = _TLSSocket
    return context


class _Socket(socket.socket):
    exchange: Exchange

    def recv_into(self, buffer: Any, nbytes: int | None = 0, flags: int = 0) -> int:
        exchange = self.exchange
        if exchange.allowance <= 0:
            raise AnswerTooLong(f"the answer is longer than {exchange.most_bytes} bytes")
        self.settimeout(exchange.time_left())
        count = super().recv_into(buffer, min(nbytes or len(buffer), exchange.allowance), flags)
        exchange.take_note(memoryview(buffer)[: min(count, FIRST_BYTES)], count)
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.settimeout(self.exchange.time_left())
        self.exchange.sent = True
        super().sendall(data, flags)


class _TLSSocket(_Socket, ssl.SSLSocket):
    pass


@dataclass(frozen=True, slots=True)
class _Dialer:
    """Makes the connections of one session. Resolving, connecting and the TLS handshake share `connect_timeout`."""

    exchange: Exchange
    resolver: Resolver
    connect_timeout: float

    def dial(self, host: str, port: int, options: Any) -> socket.socket:
        self.exchange.connected_anew = True
        until = monotonic() + self.connect_timeout
        addresses = self.resolver.resolve(host, port, self.exchange.time_left(until))
        failure = OSError("the name has no address")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            # A fair share each: an address that swallows everything must not use up the time of the next one.
            share = self.exchange.time_left(until) / (len(addresses) - position)
            made = _Socket(family, kind, protocol)
            try:
                made.settimeout(share)
                for option in options or ():
                    made.setsockopt(*option)
                made.connect(address)
                made.settimeout(self.exchange.time_left(until))
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        raise failure


class _Response(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        """The status of the final answer: http.client itself reads past no other interim answer than 100."""
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
        self.sock.exchange = self._dialer.exchange

    def getresponse(self) -> Any:
        response = super().getresponse()
        if self._dialer.exchange.ended:  # http.client takes an end inside the head for the end of the head
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


class _OnePool(HTTPAdapter):
    """Takes every connection from one pool, so no proxy and no other host can come into play."""

    def __init__(self, pool: HTTPConnectionPool) -> None:
        super().__init__(max_retries=0)
        self._pool = pool

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """The pool's own TLS context has the trusted authorities: loading them for each connection takes 20 ms."""

    def close(self) -> None:
        self._pool.close()
        super().close()


def _named(first_bytes: bytes) -> str:
    """The bytes for people: as text where they are, else in hex, with what they may be."""
    protocol = next((name for start, name in _OTHERS.items() if first_bytes.startswith(start)), None)
    text = first_bytes.decode("ascii", "replace")
    shown = repr(text.strip()) if text.strip().isprintable() and text.isascii() else first_bytes[:6].hex(" ")
    return f"{shown}: {protocol}?" if protocol else shown
