"""The service's API as methods, one for each call that the client makes."""

import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from app.client.exchange import Document, HttpSession, ServiceError, ServiceUnreachable, error_of_problem, expect
from app.client.local_file import LocalFile, OnBytes
from app.client.options import UploadOptions

MIN_DISK_RATE = 20e6
"""Bytes per second at which the service is expected to sync or compare a file before it responds."""

_TUS = {"Tus-Resumable": "1.0.0"}
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_BUSY = (HTTPStatus.LOCKED, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class StoredMedia:
    """A media record, and whether the service had it before."""

    record: Document
    duplicate: bool


@dataclass(frozen=True, slots=True)
class UploadState:
    """The state of a resumable upload: bytes received, total length, and the media item once it is complete."""

    offset: int
    length: int | None
    stored: StoredMedia | None


class RemoteService:
    """The service at `url`, called with one token. `timeout` is in seconds without any byte.

    A context manager. Each method raises ServiceError or ServiceUnreachable.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._session = HttpSession(url, token, timeout)

    def __enter__(self) -> "RemoteService":
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def media(self, media_id: str) -> Document | None:
        """Return the record of a media item, or None if the service has none."""
        try:
            response = self._session.request("GET", f"/media/{media_id}")
        except ServiceError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return expect(response.document, "id", "sizeBytes", "mediaStatus", "run")

    def detect(self, media_id: str, options: UploadOptions) -> Document:
        """Start a run on a stored media item and return its record."""
        headers, parameters = {"Prefer": "respond-async"}, options.parameters()
        parameters.pop("rerun", None)  # this call always starts a new run
        response = self._session.request("POST", f"/detect/{media_id}", headers=headers, params=parameters)
        return expect(expect(response.document, "media")["media"], "id", "mediaStatus")

    def send(self, file: LocalFile, options: UploadOptions, on_bytes: OnBytes) -> StoredMedia:
        """Upload a file in one request. Also raises UnusableFile."""
        headers = {
            "Content-Type": file.content_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(file.name), safe='')}",
            "Prefer": "respond-async",
        }
        response = self._session.request(
            "POST",
            "/detect" if options.detect else "/media",
            headers=headers,
            params=options.parameters(),
            data=file.body(on_bytes),
            extra_timeout=file.size / MIN_DISK_RATE,
        )
        return _stored(response.document)

    def create_upload(self, file: LocalFile, options: UploadOptions) -> str:
        """Create a resumable upload and return its id."""
        headers = _TUS | {"Upload-Length": str(file.size), "Upload-Metadata": options.metadata(file.name)}
        location = self._session.request("POST", "/uploads", headers=headers).headers.get("Location", "")
        # Use only the last path segment, so that the token is never sent to another address.
        upload_id = urlsplit(location).path.rpartition("/")[2]
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise ServiceError(HTTPStatus.CREATED, f"the service returned no usable upload address: {location[:200]!r}")
        return upload_id

    def end_broken_request(self, upload_id: str) -> None:
        """Have the service end an earlier request for the upload whose connection broke."""
        try:
            self._session.request("HEAD", f"/uploads/{upload_id}", headers=_TUS)
        except ServiceError as error:
            if error.status in _BUSY:
                raise  # `upload_state` reports other errors; a proxy may refuse HEAD

    def upload_state(self, upload_id: str) -> UploadState | None:
        """Return the state of a resumable upload; None if it is gone. Raises the error that it ended with."""
        try:
            document = self._session.request("GET", f"/uploads/{upload_id}").document
        except ServiceError as error:
            if error.status in GONE:
                return None
            raise
        document = expect(document, "state", "offset", "length", "media", "duplicate", "problem")
        if document["state"] == "failed":
            raise error_of_problem(document["problem"] or {})
        return UploadState(
            int(document["offset"]),
            document["length"],
            _stored(document) if document["state"] == "complete" else None,
        )

    def append(self, upload_id: str, file: LocalFile, offset: int, size: int, on_bytes: OnBytes) -> int:
        """Send `size` bytes of the file from `offset` on, and return how many bytes the service has."""
        headers = _TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        is_last = offset + size >= file.size
        response = self._session.request(
            "PATCH",
            f"/uploads/{upload_id}",
            headers=headers,
            data=file.body(on_bytes, offset, size) if size else b"",
            extra_timeout=(file.size if is_last else size) / MIN_DISK_RATE,
        )
        acknowledged = response.number("Upload-Offset")
        if acknowledged is None or acknowledged < offset + size:
            raise ServiceUnreachable(f"the service has {acknowledged} bytes after a part that ended at {offset + size}")
        return acknowledged


def is_web_address(url: str) -> bool:
    """Return whether the text is an http or https address with a host and without password, query or fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain


def _stored(document: Document) -> StoredMedia:
    document = expect(document, "media", "duplicate")
    return StoredMedia(expect(document["media"], "id", "mediaStatus"), bool(document["duplicate"]))
