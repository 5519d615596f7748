"""One request and its answer, with a deadline and a token; every failure is one of two exceptions."""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from app.errors import DetectionsError
from app.formats.retry_after import retry_after_seconds

MAX_ANSWER_BYTES = 1 << 20

Document = Mapping[str, Any]
_NETWORK_ERRORS = (requests.RequestException, HTTPError, OSError)
_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)
_MAY_PASS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.LOCKED, HTTPStatus.TOO_MANY_REQUESTS)


class ServiceRefused(DetectionsError):
    """An answer that is no success. `retry_after` is in seconds, None where the service did not say; `offset` is the
    one that a resumable upload has, in bytes, where the answer names it."""

    def __init__(
        self, status: int, reason: str, retry_after: float | None = None, *, offset: int | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after
        self.offset = offset

    @property
    def may_pass(self) -> bool:
        """The same request may succeed later without anybody doing anything."""
        is_passing_failure = self.status in _SERVER_ERRORS and self.status != HTTPStatus.INSUFFICIENT_STORAGE
        is_wrong_offset = self.status == HTTPStatus.CONFLICT and self.offset is not None
        return self.status in _MAY_PASS or is_passing_failure or is_wrong_offset


class ServiceSilent(DetectionsError):
    """No whole answer came: no connection, a broken one, or silence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: its header fields, whose names compare without case, and its JSON; empty where it has none."""

    headers: Mapping[str, str]
    document: Document

    def number(self, name: str) -> int | None:
        """A header field that counts bytes; None where it is missing or says something else."""
        return _number(self.headers.get(name))


class _Bearer(AuthBase):
    """As `auth`, so that no password of a .netrc file takes its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _AuthorizedSession(requests.Session):
    def __init__(self, token: str) -> None:
        super().__init__()
        self.auth = _Bearer(token)


class Exchanges:
    """Requests to the service at `url` with one token; `silence` is how many seconds of it end a request.

    Proxies are used as the environment says.
    """

    def __init__(self, url: str, token: str, silence: float) -> None:
        self._url = url.rstrip("/")
        self._silence = silence
        self._session = _AuthorizedSession(token)

    def close(self) -> None:
        self._session.close()

    def ask(self, method: str, path: str, *, patience: float = 0.0, **options: Any) -> Answer:
        """Send a request, with `patience` more seconds for its answer, and `options` as `requests` takes them.

        Raises ServiceRefused or ServiceSilent.
        """
        # The first of the two also bounds each write, so a stalled upload ends as well.
        timeouts = (self._silence, self._silence + patience)
        try:
            response = self._session.request(
                method,
                self._url + path,
                timeout=timeouts,
                allow_redirects=False,
                stream=True,
                **options,
            )
            with closing(response):
                content = response.raw.read(MAX_ANSWER_BYTES, decode_content=True)
        except _NETWORK_ERRORS as error:
            raise ServiceSilent(_reason(error)) from error
        document = _parsed(content)
        if response.status_code not in _SUCCESS:
            raise _refusal(response, document)
        return Answer(response.headers, document)


def expect(document: object, *names: str) -> Document:
    """The document, which must have these members; raises ServiceRefused."""
    if not isinstance(document, Mapping) or not all(name in document for name in names):
        raise ServiceRefused(HTTPStatus.OK, "the answer is not one of this service; is the address right?")
    return document


def refusal_of(problem: Document) -> ServiceRefused:
    """The refusal that a problem document tells of, as if it were the answer."""
    status = problem.get("status")
    status = status if isinstance(status, int) else HTTPStatus.BAD_REQUEST
    return ServiceRefused(status, f"{status}: {_said(problem) or 'no reason given'}")


def _parsed(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(response: requests.Response, document: Document) -> ServiceRefused:
    headers, status = response.headers, response.status_code
    said = _said(document) or response.reason or "no reason given"
    if "Location" in headers and status in range(300, 400):
        said = f"the address leads on to {headers['Location']}; give the one that it ends at"
    wait = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), time.time())
    return ServiceRefused(status, f"{status}: {said}", wait, offset=_number(headers.get("Upload-Offset")))


def _said(document: Document) -> object:
    return document.get("detail") or document.get("title")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _reason(error: BaseException) -> str:
    """The innermost words: the outer ones repeat the address and name classes of the library."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = error.strerror if isinstance(error, OSError) and error.errno else str(error)
    return words or type(error).__name__
