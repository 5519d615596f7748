"""Turns a request into an Upload: what is checked before its body is read, and reading the body."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flask import g, request

from app.current import get_services
from app.errors import UnsupportedMedia
from app.ingest import Upload
from app.media.display_name import clean_name
from app.media.hashing import VIRTUAL_PREFIX, media_id_of_file
from app.media.types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of
from app.web import request_slot
from app.web.metrics.process import process_metrics
from app.web.upload.body import UploadBody, open_upload
from app.web.upload.request_body import content_length

MAX_UNSTORED_BYTES = 64 << 20


@contextmanager
def receive_upload() -> Iterator[Upload]:
    """Yield the request's file, to be ingested within the block; holds one of the process's slots."""
    service = get_services()
    limit = service.settings.max_upload_bytes
    declared = content_length(request.environ) or 0
    if declared <= limit:  # a larger one is refused later, whatever the free space
        service.storage.admit(declared)
    service.database.ensure_usable()
    with request_slot.slot():
        body = _open(limit)
        yield Upload(
            name=body.name,
            user_id=g.user_id,
            chunks=process_metrics().received(body.chunks()),
            declared_bytes=body.declared_bytes,
            request_id=g.request_id,
        )


@dataclass(frozen=True, slots=True)
class UnstoredPicture:
    """A completely received picture that is not stored: an unnamed file, positioned at its start."""

    name: str
    fd: int
    size: int
    virtual_id: str
    checksum: str


@contextmanager
def receive_unstored_picture() -> Iterator[UnstoredPicture]:
    """Yield the request's image of at most 64 MiB for the duration of the block.

    It is an unnamed file, because a dozen of them would exhaust a small machine's memory.
    """
    limit = min(MAX_UNSTORED_BYTES, get_services().settings.max_upload_bytes)
    body = _open(limit)
    name = clean_name(body.name)
    extension = extension_of(name)
    if MEDIA_TYPES[extension].kind != "Image":
        raise UnsupportedMedia(f"persist=false supports images only; .{extension} is a video.")
    with get_services().storage.scratch("Image", body.declared_bytes) as scratch:
        checksum = scratch.write_all(process_metrics().received(body.chunks()))
        check_first_bytes(extension, scratch.head(HEAD_BYTES))
        virtual_id = VIRTUAL_PREFIX + media_id_of_file(scratch.fd)
        yield UnstoredPicture(name, scratch.fd, scratch.size, virtual_id, checksum)


def _open(max_bytes: int) -> UploadBody:
    return open_upload(request.environ, max_bytes=max_bytes, idle_timeout=get_services().settings.upload_idle_timeout)
