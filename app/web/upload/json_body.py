"""Reads small JSON bodies with the timeouts of uploads, and parses them strictly.

The caller must hold a slot, because a client may take a minute to send the body.
"""

import json
from typing import Any, NoReturn

from flask import request

from app.current import get_services
from app.errors import MalformedUpload, MediaTooLarge
from app.web.upload.receive_timeouts import Pace
from app.web.upload.request_body import content_length, open_source

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
GRACE_SECONDS = 10.0
BYTES_PER_SECOND = 1024.0


def read_object() -> dict[str, Any]:
    """Return the body as a JSON object without repeated members.

    Raises MalformedUpload for anything else, MediaTooLarge beyond MAX_BYTES (declared or received), and UploadTimedOut.
    """
    if request.mimetype != "application/json":
        raise MalformedUpload(f"Content-Type must be application/json, not {request.mimetype[:80]!r}.")
    try:
        document = json.loads(_content(), object_pairs_hook=_members, parse_constant=_refuse_constant)
        is_too_deep = _depth(document) > MAX_DEPTH
    except (ValueError, RecursionError) as error:
        raise MalformedUpload("The body is not JSON.") from error
    if is_too_deep:
        raise MalformedUpload(f"The body is nested more than {MAX_DEPTH} levels deep.")
    if not isinstance(document, dict):
        raise MalformedUpload("The body must be a JSON object.")
    return document


def _content() -> bytes:
    if (content_length(request.environ) or 0) > MAX_BYTES:
        raise _too_large()
    idle_timeout = get_services().settings.upload_idle_timeout
    source = open_source(request.environ, Pace(idle_timeout, grace=GRACE_SECONDS, bytes_per_second=BYTES_PER_SECOND))
    content = bytearray()
    while chunk := source.read():
        content += chunk
        if len(content) > MAX_BYTES:
            raise _too_large()
    return bytes(content)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is repeated")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _too_large() -> MediaTooLarge:
    return MediaTooLarge(f"the body has more than {MAX_BYTES} bytes")
