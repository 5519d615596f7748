"""One look at an issuer's published keys: an exchange with a deadline and a limit, whatever the other side does."""

import time
from http import HTTPStatus
from urllib.parse import urlsplit

from app.http_exchange.deadline import DeadlineSession, Endpoint, create_tls_context
from app.http_exchange.exchange import exchange
from app.http_exchange.resolver import Resolver
from app.process.version import USER_AGENT

MAX_BYTES = 256 * 1024
"""Hundreds of keys; issuers publish a few."""

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": f"{USER_AGENT} (jwks)",
}


class IssuerDocument:
    """The document at `url`, each fetch of which ends within so many seconds.

    Redirects are not followed: which keys are trusted is the setting's to say, not that of whoever answers there.
    Raises SettingsError for a bad URL.
    """

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._endpoint = Endpoint.parse(f"{parts.scheme}://{parts.netloc}", "JWT_JWKS_URL")
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._seconds = seconds
        self._tls = create_tls_context() if parts.scheme == "https" else None
        self._resolver = Resolver()

    def fetch(self) -> bytes:
        """The body of a 200, at most MAX_BYTES with its head. Raises TransportError, or ValueError for another answer
        or a longer one."""
        with DeadlineSession(self._endpoint, self._resolver, self._seconds, self._tls, MAX_BYTES) as session:
            session.state.ends_at = time.monotonic() + self._seconds
            response = exchange(session, "GET", self._target, _HEADERS)
        if response.status != HTTPStatus.OK:
            raise ValueError(f"the answer is {response.status}, not 200")
        if response.cut:
            raise ValueError(f"the answer has more than {MAX_BYTES} bytes")
        return response.body
