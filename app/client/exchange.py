"""One request and its response, with a timeout and a token. Every failure is one of two exceptions."""

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

MAX_RESPONSE_BYTES = 1 << 20

Document = Mapping[str, Any]
_NETWORK_ERRORS = (requests.RequestException, HTTPError, OSError)
_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)
_TRANSIENT_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.LOCKED, HTTPStatus.TOO_MANY_REQUESTS)


class ServiceError(DetectionsError):
    """A response without a success status.

    `retry_after` is in seconds, None if absent. `offset` is the offset of a resumable upload in bytes, if the response
    has it.
    """

    def __init__(
        self, status: int, reason: str, retry_after: float | None = None, *, offset: int | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after
        self.offset = offset

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        is_transient_server_error = self.status in _SERVER_ERRORS and self.status != HTTPStatus.INSUFFICIENT_STORAGE
        is_wrong_offset = self.status == HTTPStatus.CONFLICT and self.offset is not None
        return self.status in _TRANSIENT_STATUSES or is_transient_server_error or is_wrong_offset


class ServiceUnreachable(DetectionsError):
    """No complete response was received: no connection, a broken connection or a timeout."""


@dataclass(frozen=True, slots=True)
class Response:
    """A successful response: its headers (case-insensitive) and its JSON object, empty if there is none."""

    headers: Mapping[str, str]
    document: Document

    def number(self, name: str) -> int | None:
        """Return a header with a byte count, or None if it is missing or not a number."""
        return _number(self.headers.get(name))


class _Bearer(AuthBase):
    """Authentication by token; as `auth`, so that requests does not use a password from .netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _AuthorizedSession(requests.Session):
    def __init__(self, token: str) -> None:
        super().__init__()
        self.auth = _Bearer(token)


class HttpSession:
    """Requests to the service at `url` with one token. `timeout` is in seconds without any byte.

    Proxies of the environment are used.
    """

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._session = _AuthorizedSession(token)

    def close(self) -> None:
        self._session.close()

    def request(self, method: str, path: str, *, extra_timeout: float = 0.0, **options: Any) -> Response:
        """Send a request. `extra_timeout` is added to `timeout` for the response; `options` are those of requests.

        Raises ServiceError or ServiceUnreachable.
        """
        # The connect timeout also bounds each write, so a stalled upload ends too.
        timeouts = (self._timeout, self._timeout + extra_timeout)
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
                content = response.raw.read(MAX_RESPONSE_BYTES, decode_content=True)
        except _NETWORK_ERRORS as error:
            raise ServiceUnreachable(_reason(error)) from error
        document = _parse(content)
        if response.status_code not in _SUCCESS:
            raise _error_of_response(response, document)
        return Response(response.headers, document)


def expect(document: object, *names: str) -> Document:
    """Return the document if it has these members. Raises ServiceError otherwise."""
    if not isinstance(document, Mapping) or not all(name in document for name in names):
        raise ServiceError(HTTPStatus.OK, "the response is not from this service; check the address")
    return document


def error_of_problem(problem: Document) -> ServiceError:
    """Return the error that a problem document describes."""
    status = problem.get("status")
    status = status if isinstance(status, int) else HTTPStatus.BAD_REQUEST
    return ServiceError(status, f"{status}: {_description(problem) or 'no reason given'}")


def _parse(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _error_of_response(response: requests.Response, document: Document) -> ServiceError:
    headers, status = response.headers, response.status_code
    reason = _description(document) or response.reason or "no reason given"
    if "Location" in headers and status in range(300, 400):
        reason = f"the address redirects to {headers['Location']}; use that address"
    wait = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), time.time())
    return ServiceError(status, f"{status}: {reason}", wait, offset=_number(headers.get("Upload-Offset")))


def _description(document: Document) -> object:
    return document.get("detail") or document.get("title")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _reason(error: BaseException) -> str:
    """Return the message of the innermost error; outer ones repeat the address and name library classes."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, TimeoutError):
        return "no response in time"
    words = error.strerror if isinstance(error, OSError) and error.errno else str(error)
    return words or type(error).__name__
