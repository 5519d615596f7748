"""The service as a client sees it: one method for each thing that is asked of it."""

import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from app.client.exchange import Document, Exchanges, ServiceRefused, ServiceSilent, expect, refusal_of
from app.client.local_file import LocalFile, OnBytes
from app.client.options import UploadOptions

SLOWEST_DISK = 20e6
"""Bytes a second at which the service may sync a file, or compare it with a stored one, before it answers."""

_TUS = {"Tus-Resumable": "1.0.0"}
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_BUSY = (HTTPStatus.LOCKED, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Stored:
    """A media record, and whether the service had it before."""

    record: Document
    duplicate: bool


@dataclass(frozen=True, slots=True)
class UploadState:
    """How a resumable upload stands: bytes that the service has, of how many; and what it became, once it has all."""

    offset: int
    length: int | None
    stored: Stored | None


class RemoteService:
    """The service at `url`, asked with one token; `silence` is how many seconds of it end a request.

    A context manager. Each method raises ServiceRefused or ServiceSilent.
    """

    def __init__(self, url: str, token: str, *, silence: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._exchanges = Exchanges(url, token, silence)

    def __enter__(self) -> "RemoteService":
        return self

    def __exit__(self, *_error: object) -> None:
        self._exchanges.close()

    def media(self, media_id: str) -> Document | None:
        """The record of a media item, None where the service has none."""
        try:
            answer = self._exchanges.ask("GET", f"/media/{media_id}")
        except ServiceRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return expect(answer.document, "id", "sizeBytes", "mediaStatus", "run")

    def detect(self, media_id: str, options: UploadOptions) -> Document:
        """Ask for a run on a stored media item; its record."""
        headers, parameters = {"Prefer": "respond-async"}, options.parameters()
        parameters.pop("rerun", None)  # which this always is
        answer = self._exchanges.ask("POST", f"/detect/{media_id}", headers=headers, params=parameters)
        return expect(expect(answer.document, "media")["media"], "id", "mediaStatus")

    def send(self, file: LocalFile, options: UploadOptions, on_bytes: OnBytes) -> Stored:
        """Upload a file in one request. Raises FileUnfit, too, where the file cannot be read to its end."""
        headers = {
            "Content-Type": file.content_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(file.name), safe='')}",
            "Prefer": "respond-async",
        }
        answer = self._exchanges.ask(
            "POST",
            "/detect" if options.detect else "/media",
            headers=headers,
            params=options.parameters(),
            data=file.body(on_bytes),
            patience=file.size / SLOWEST_DISK,
        )
        return _stored(answer.document)

    def create_upload(self, file: LocalFile, options: UploadOptions) -> str:
        """Begin a resumable upload of a file; its id."""
        headers = _TUS | {"Upload-Length": str(file.size), "Upload-Metadata": options.metadata(file.name)}
        location = self._exchanges.ask("POST", "/uploads", headers=headers).headers.get("Location", "")
        # The last part alone: the token must not follow an address that leads elsewhere.
        upload_id = urlsplit(location).path.rpartition("/")[2]
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise ServiceRefused(HTTPStatus.CREATED, f"the new upload has no usable address: {location[:200]!r}")
        return upload_id

    def settle_upload(self, upload_id: str) -> None:
        """Have the service end the request whose connection broke, if it is still waiting for that one's bytes."""
        try:
            self._exchanges.ask("HEAD", f"/uploads/{upload_id}", headers=_TUS)
        except ServiceRefused as error:
            if error.status in _BUSY:
                raise  # the rest is told by `upload_state`, also where a proxy refuses HEAD

    def upload_state(self, upload_id: str) -> UploadState | None:
        """How a resumable upload stands; None where it is gone. Raises the ServiceRefused that it ended with, too."""
        try:
            document = self._exchanges.ask("GET", f"/uploads/{upload_id}").document
        except ServiceRefused as error:
            if error.status in GONE:
                return None
            raise
        document = expect(document, "state", "offset", "length", "media", "duplicate", "problem")
        if document["state"] == "failed":
            raise refusal_of(document["problem"] or {})
        return UploadState(
            int(document["offset"]),
            document["length"],
            _stored(document) if document["state"] == "complete" else None,
        )

    def append(self, upload_id: str, file: LocalFile, offset: int, size: int, on_bytes: OnBytes) -> int:
        """Send the `size` bytes of the file that follow the first `offset` ones; how many the service has now."""
        headers = _TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        is_last = offset + size >= file.size
        answer = self._exchanges.ask(
            "PATCH",
            f"/uploads/{upload_id}",
            headers=headers,
            data=file.body(on_bytes, offset, size) if size else b"",
            patience=(file.size if is_last else size) / SLOWEST_DISK,
        )
        reached = answer.number("Upload-Offset")
        if reached is None or reached < offset + size:
            raise ServiceSilent(f"the service has {reached} bytes after a part that ended at {offset + size}")
        return reached


def is_web_address(url: str) -> bool:
    """Whether the text can be the address of a service: http or https, a host, no password, nothing behind its path."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain


def _stored(document: Document) -> Stored:
    document = expect(document, "media", "duplicate")
    return Stored(expect(document["media"], "id", "mediaStatus"), bool(document["duplicate"]))
