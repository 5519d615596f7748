"""What comes back from a request: a Response, or a TransportError."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import requests
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from app.http_exchange.deadline import Exchange, NotHTTP

NETWORK_ERRORS = (RequestException, HTTPError, HTTPException, OSError)
"""All that a send can raise through no fault of ours."""

READ_SIZE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer, its body undecoded; `cut` says that it was longer than its session reads."""

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
        """Whether it is a page for people: a sign-on proxy's, a front end's, a gateway's.

        An empty body is none, whatever its type: frameworks call it text/html.
        """
        body = self.body.lstrip()
        return bool(body) and (self.media_type in ("text/html", "application/xhtml+xml") or body.startswith(b"<"))

    @property
    def is_compressed(self) -> bool:
        return self.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises ValueError for anything else."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def record(self) -> dict[str, Any] | None:
        """The body as a JSON object; None if it is anything else."""
        try:
            content = self.json()
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


class TransportError(Exception):
    """A request that brought no whole answer.

    `may_have_arrived`: some of the request may have reached the other side. `stale`: the connection was left over from
    an earlier request and ended before a byte of answer, as happens when the other side closes an idle one.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool = True, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_arrived = may_have_arrived
        self.stale = stale


class ConnectError(TransportError):
    """No connection was made, so nothing was sent."""


class TLSError(TransportError):
    """TLS refused after a connection had been made."""


class ProtocolError(TransportError):
    """What answers does not speak HTTP."""


class ReadError(TransportError):
    """The connection broke, or the time was up, before the answer was whole."""


def transport_error(error: BaseException, exchange: Exchange, origin: str) -> TransportError:
    """The error of a request, classified by what its exchange has come to."""
    cause = _cause(error)
    reason = "timed out" if isinstance(cause, TimeoutError) else str(cause) or type(cause).__name__
    if exchange.connected_anew and not exchange.sent:
        return ConnectError(f"no connection to {origin}: {reason}", may_have_arrived=False)
    if isinstance(cause, NotHTTP):
        return ProtocolError(reason)
    if exchange.sent and isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return TLSError(reason)
    stale = exchange.sent and not exchange.connected_anew and not exchange.received
    return ReadError(reason, may_have_arrived=exchange.sent, stale=stale)


def read_response(response: requests.Response, exchange: Exchange) -> Response:
    """The whole answer, or as much as may be read; raises one of NETWORK_ERRORS where it is cut off."""
    body, cut = bytearray(), False
    try:
        while piece := response.raw.read(READ_SIZE, decode_content=False):
            body += piece
    except HTTPError:
        if exchange.allowance > 0:
            raise
        cut = True
    return Response(response.status_code, response.headers, bytes(body), cut)


def _cause(error: BaseException) -> BaseException:
    """What lies under the wrappers of requests and urllib3."""
    while isinstance(error, RequestException | HTTPError):
        inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
        found = next((one for one in inner if isinstance(one, BaseException)), None)
        if found is None:
            break
        error = found
    return error
