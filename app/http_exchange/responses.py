"""The result of a request: a Response or a TransportError."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import requests
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from app.http_exchange.deadline import NotHTTP, RequestState

NETWORK_ERRORS = (RequestException, HTTPError, HTTPException, OSError)
"""All errors of the network and of the other side that a request can raise."""

READ_SIZE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response with its undecoded body; `cut` says that it was longer than its session reads."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    @property
    def text(self) -> str:
        """The body as text, for people."""
        if self.is_compressed:
            return "(compressed, though that was not asked for)"
        return self.body.decode(errors="replace")

    @property
    def is_html(self) -> bool:
        """Whether the body is a page for people, as of a sign-on proxy or a gateway.

        An empty body is none, because frameworks label it text/html.
        """
        body = self.body.lstrip()
        return bool(body) and (self.media_type in ("text/html", "application/xhtml+xml") or body.startswith(b"<"))

    @property
    def is_compressed(self) -> bool:
        """Whether the body is compressed."""
        return self.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Return the body as JSON. Raises ValueError if it is not JSON."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def record(self) -> dict[str, Any] | None:
        """Return the body as a JSON object; None if it is not one."""
        try:
            content = self.json()
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


class TransportError(Exception):
    """A request got no complete response.

    `may_have_arrived` says that a part of the request may have reached the other side. `stale` says that a reused
    connection ended before the first byte of a response, as happens if the other side closes an idle one.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool = True, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_arrived = may_have_arrived
        self.stale = stale


class ConnectError(TransportError):
    """No connection was made, so nothing was sent."""


class TLSError(TransportError):
    """The TLS handshake failed after the connection was made."""


class ProtocolError(TransportError):
    """The server does not speak HTTP."""


class ReadError(TransportError):
    """The connection broke, or the deadline passed, before the response was complete."""


def transport_error(error: BaseException, state: RequestState, origin: str) -> TransportError:
    """Return the TransportError for one of NETWORK_ERRORS, by the progress of the request."""
    cause = _cause(error)
    reason = "timed out" if isinstance(cause, TimeoutError) else str(cause) or type(cause).__name__
    if state.connected_anew and not state.sent:
        return ConnectError(f"no connection to {origin}: {reason}", may_have_arrived=False)
    if isinstance(cause, NotHTTP):
        return ProtocolError(reason)
    if state.sent and isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return TLSError(reason)
    stale = state.sent and not state.connected_anew and not state.received
    return ReadError(reason, may_have_arrived=state.sent, stale=stale)


def read_response(response: requests.Response, state: RequestState) -> Response:
    """Read the response, at most as much of it as its session reads. Raises one of NETWORK_ERRORS if it is cut off."""
    body, cut = bytearray(), False
    try:
        while piece := response.raw.read(READ_SIZE, decode_content=False):
            body += piece
    except HTTPError:
        if state.allowance > 0:
            raise
        cut = True
    return Response(response.status_code, response.headers, bytes(body), cut)


def _cause(error: BaseException) -> BaseException:
    """Return the error that requests and urllib3 have wrapped."""
    while isinstance(error, RequestException | HTTPError):
        inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
        found = next((one for one in inner if isinstance(one, BaseException)), None)
        if found is None:
            break
        error = found
    return error
