"""What comes back from a send: a reply, or no answer. Its text is another's word, cleaned before it is kept."""

import json
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

import requests
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from app.annotations.deadline import Exchange

NETWORK_ERRORS = (RequestException, HTTPError, HTTPException, OSError)
"""All that a send can raise through no fault of ours."""

READ_SIZE = 16 * 1024
JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, its body undecoded and cut at MAX_ANSWER_BYTES."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text, for people."""
        if self.headers.get("Content-Encoding", "identity") != "identity":
            return "(compressed, though that was not asked for)"
        return self.body.decode(errors="replace")

    @property
    def is_html(self) -> bool:
        """Whether it is a page for people: a sign-on proxy's, a front end's, a gateway's.

        An empty body is none, whatever its type: frameworks call it text/html.
        """
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        body = self.body.lstrip()
        return bool(body) and (kind in ("text/html", "application/xhtml+xml") or body.startswith(b"<"))

    def record(self) -> dict[str, Any] | None:
        """The body as a JSON object; None if it is anything else."""
        try:
            content = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None


class NoAnswer(Exception):
    """A send that brought no whole answer.

    `connecting`: no connection was made, so nothing was sent. `sent`: some of the request may have arrived.
    `stale`: the connection was left over from an earlier send and ended before a byte of answer, as happens when the
    other side closes an idle one. `untrusted`: TLS refused.
    """

    def __init__(
        self, reason: str, *, connecting: bool = False, sent: bool = True, stale: bool = False, untrusted: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.connecting = connecting
        self.sent = sent
        self.stale = stale
        self.untrusted = untrusted

    @classmethod
    def after(cls, error: BaseException, exchange: Exchange, origin: str) -> "NoAnswer":
        """The error of a send, judged by what its exchange has come to."""
        cause = _cause(error)
        connecting = exchange.connected_anew and not exchange.sent
        reason = "timed out" if isinstance(cause, TimeoutError) else str(cause) or type(cause).__name__
        return cls(
            f"no connection to {origin}: {reason}" if connecting else reason,
            connecting=connecting,
            sent=exchange.sent,
            stale=exchange.sent and not exchange.connected_anew and not exchange.received,
            untrusted=isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError),
        )


def read_reply(response: requests.Response, exchange: Exchange) -> Reply:
    """The whole answer, or its first MAX_ANSWER_BYTES; raises one of NETWORK_ERRORS where it is cut off."""
    body = bytearray()
    try:
        while piece := response.raw.read(READ_SIZE, decode_content=False):
            body += piece
    except HTTPError:
        if exchange.allowance > 0:
            raise
    return Reply(response.status_code, response.headers, bytes(body))


def presentable(text: str, secrets: Iterable[str], limit: int) -> str:
    """Its first `limit` characters, on one line, printable, without the secrets or anything like a JSON Web Token."""
    for secret in secrets:
        for spelling in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe="")):
            text = text.replace(spelling, "[token]")
    text = JSON_WEB_TOKEN.sub("[token]", text)[: limit * 8]
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())[:limit]


def _cause(error: BaseException) -> BaseException:
    """What lies under the wrappers of requests and urllib3."""
    while isinstance(error, RequestException | HTTPError):
        inner = [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
        found = next((one for one in inner if isinstance(one, BaseException)), None)
        if found is None:
            break
        error = found
    return error
