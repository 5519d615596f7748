"""The service as a client sees it: one request in, its document out, and every trouble as one of two exceptions."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from app.client.local_file import LocalFile, OnBytes
from app.errors import DetectionsError
from app.formats.retry_after import retry_after_seconds

MAX_ANSWER_BYTES = 1 << 20
SLOWEST_DISK = 20e6
"""Bytes a second at which the service may sync a file, or compare it with a stored one, before it answers."""

Document = Mapping[str, Any]
_NETWORK_ERRORS = (requests.RequestException, HTTPError, OSError)
_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)
_MAY_PASS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class ServiceRefused(DetectionsError):
    """An answer that is no success. `retry_after` is in seconds, None where the service did not say."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """The same request may succeed later without anybody doing anything."""
        is_passing_trouble = self.status in _SERVER_ERRORS and self.status != HTTPStatus.INSUFFICIENT_STORAGE
        return self.status in _MAY_PASS or is_passing_trouble


class ServiceSilent(DetectionsError):
    """No whole answer came: no connection, a broken one, or silence."""


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


class RemoteService:
    """The service at `url`, asked with one token; `silence` is how many seconds of it end a request.

    A context manager. Proxies are used as the environment says.
    """

    def __init__(self, url: str, token: str, *, silence: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._silence = silence
        self._session = _AuthorizedSession(token)

    def __enter__(self) -> "RemoteService":
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def media(self, media_id: str) -> Document | None:
        """The record of a media, None where the service has none. Raises ServiceRefused or ServiceSilent."""
        try:
            record = self._ask("GET", f"/media/{media_id}")
        except ServiceRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return _expect(record, "id", "sizeBytes", "mediaStatus", "run")

    def detect(self, media_id: str) -> Document:
        """Ask for a run on a stored media; its record. Raises ServiceRefused or ServiceSilent."""
        answer = self._ask("POST", f"/detect/{media_id}", headers={"Prefer": "respond-async"})
        return _expect(_expect(answer, "media")["media"], "id", "mediaStatus")

    def send(self, file: LocalFile, *, detect: bool, on_bytes: OnBytes) -> tuple[Document, bool]:
        """Upload a file; its record, and whether it was there already.

        Raises ServiceRefused, ServiceSilent, or FileUnfit where the file cannot be read to its end.
        """
        headers = {
            "Content-Type": file.content_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(file.name), safe='')}",
            "Prefer": "respond-async",
        }
        path, body = "/detect" if detect else "/media", file.body(on_bytes)
        answer = self._ask("POST", path, headers=headers, data=body, patience=file.size / SLOWEST_DISK)
        answer = _expect(answer, "media", "duplicate")
        return _expect(answer["media"], "id", "mediaStatus"), bool(answer["duplicate"])

    def _ask(self, method: str, path: str, *, patience: float = 0.0, **options: Any) -> Document:
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
        return document


def is_web_address(url: str) -> bool:
    """Whether the text can be the address of a service: http or https, a host, no password, nothing behind its path."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain


def _parsed(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _expect(document: object, *names: str) -> Document:
    if not isinstance(document, Mapping) or not all(name in document for name in names):
        raise ServiceRefused(HTTPStatus.OK, "the answer is not one of this service; is the address right?")
    return document


def _refusal(response: requests.Response, document: Document) -> ServiceRefused:
    headers, status = response.headers, response.status_code
    said = document.get("detail") or document.get("title") or response.reason or "no reason given"
    if "Location" in headers and status in range(300, 400):
        said = f"the address leads on to {headers['Location']}; give the one that it ends at"
    wait = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), time.time())
    return ServiceRefused(status, f"{status}: {said}", wait)


def _reason(error: BaseException) -> str:
    """The innermost words: the outer ones repeat the address and name classes of the library."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = error.strerror if isinstance(error, OSError) and error.errno else str(error)
    return words or type(error).__name__
