"""Fetches an issuer's published keys with a deadline and a size limit."""

import time
from contextlib import closing
from http import HTTPStatus
from urllib.parse import urlsplit

from app.http_exchange.deadline import DeadlineSession, Endpoint, create_tls_context
from app.http_exchange.exchange import exchange
from app.http_exchange.resolver import Resolver
from app.process.version import USER_AGENT

MAX_BYTES = 256 * 1024
"""Enough for hundreds of keys; issuers publish a few."""

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": f"{USER_AGENT} (jwks)",
}


class IssuerDocument:
    """The document at `url`. Each fetch ends within `seconds`.

    Redirects are not followed, because the setting decides which keys are trusted. Raises SettingsError for a bad URL.
    """

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._endpoint = Endpoint.parse(f"{parts.scheme}://{parts.netloc}", "JWT_JWKS_URL")
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._seconds = seconds
        self._tls = create_tls_context() if parts.scheme == "https" else None
        self._resolver = Resolver()

    def fetch(self) -> bytes:
        """Return the body of a 200 response, at most MAX_BYTES including its head.

        Raises TransportError, or ValueError for another response or a longer one.
        """
        with closing(DeadlineSession(self._endpoint, self._resolver, self._seconds, self._tls, MAX_BYTES)) as session:
            session.state.ends_at = time.monotonic() + self._seconds
            response = exchange(session, "GET", self._target, _HEADERS)
        if response.status != HTTPStatus.OK:
            raise ValueError(f"the response is {response.status}, not 200")
        if response.cut:
            raise ValueError(f"the response has more than {MAX_BYTES} bytes")
        return response.body
