"""Error responses as `application/problem+json` (RFC 9457): one table from exception to status."""

import math
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, g, json, request, url_for
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, PreconditionFailed

from app import errors
from app.current import get_services

log = structlog.get_logger()

TYPE_BASE = "urn:detections:problem:"
MIMETYPE = "application/problem+json"
MAX_SHOWN = 200
_RETRY_AFTER = {423: 1.0, 429: 60.0, 503: 1.0}
"""Statuses after which the request may be repeated, and the default Retry-After in seconds."""

PROBLEMS: dict[type[errors.DetectionsError], tuple[int, str, str]] = {
    errors.MalformedUpload: (400, "malformed-upload", "The request cannot be understood"),
    errors.Unauthorized: (401, "unauthorized", "No acceptable token"),
    errors.Forbidden: (403, "forbidden", "Not allowed"),
    errors.MediaNotFound: (404, "not-found", "No such media item"),
    errors.UploadTimedOut: (408, "upload-timed-out", "The client stopped sending"),
    errors.UploadNotFound: (404, "not-found", "No such upload"),
    errors.UploadGone: (410, "gone", "The upload has expired"),
    errors.WrongOffset: (409, "wrong-offset", "The part does not begin where the last one ended"),
    errors.UploadLocked: (423, "locked", "Another request is writing the upload"),
    errors.ChecksumMismatch: (460, "checksum-mismatch", "The checksum does not match"),
    errors.TooManyUploads: (429, "too-many-uploads", "Too many unfinished uploads"),
    errors.UnsupportedProtocol: (412, "unsupported-version", "Unsupported version of tus"),
    errors.MediaIdCollision: (409, "media-id-collision", "The id exists with other content"),
    errors.NotParked: (409, "not-parked", "Nothing is parked"),
    errors.AlreadyProcessing: (409, "already-processing", "A run is under way"),
    errors.NotProcessing: (409, "not-processing", "No run is under way"),
    errors.MediaTooLarge: (413, "too-large", "Too large"),
    errors.UnsupportedMedia: (415, "unsupported-media", "Unsupported file type"),
    errors.Undecodable: (422, "undecodable", "The file cannot be decoded"),
    errors.StorageFailed: (500, "storage-failed", "The disk failed"),
    errors.Unavailable: (503, "unavailable", "Not available now"),
    errors.DetectorFailed: (503, "unavailable", "The detector failed"),
    errors.StorageFull: (507, "storage-full", "No space for the file"),
}


def problem(status: int, name: str, title: str, detail: str, **extra: Any) -> Response:
    """Return a problem response; `extra` adds members to the standard ones."""
    g.problem = name
    body = {"type": TYPE_BASE + name, "title": title, "status": status, "detail": detail}
    body |= {"requestId": g.get("request_id")} | extra
    return Response(json.dumps(body), status, mimetype=MIMETYPE)


def as_document(error: errors.DetectionsError) -> dict[str, Any]:
    """Return the problem document for an error, without a request id."""
    status, name, title = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    body = {"type": TYPE_BASE + name, "title": title, "status": status, "detail": str(error)}
    return body | _media_members(getattr(error, "media_id", None))


def install(app: Flask) -> None:
    """Turn every exception of a view into a problem response."""
    app.register_error_handler(errors.DetectionsError, _of_detections_error)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(DBAPIError, _of_database)
    app.register_error_handler(Exception, _unexpected)
    app.after_request(_replace_precondition_failed)


def _of_detections_error(error: errors.DetectionsError) -> Response:
    entry = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)
    if entry is None:
        return _unexpected(error)
    status, name, title = entry
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(
        error, errors.DatabaseFailed
    ):  # which is logged once a minute
        log.warning("request_failed", status=status, problem=name, detail=str(error), cause=repr(error.__cause__))
    response = problem(status, name, title, str(error), **_media_members(getattr(error, "media_id", None)))
    if isinstance(error, errors.WrongOffset):
        response.headers["Upload-Offset"] = str(error.offset)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in _RETRY_AFTER:
        response.headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after", _RETRY_AFTER[status])))
    return response


def _media_members(media_id: str | None) -> dict[str, str]:
    """Return the members that identify the problem's media item."""
    return {} if media_id is None else {"mediaId": media_id, "mediaUrl": url_for("media.show", media_id=media_id)}


def _of_database(error: DBAPIError) -> Response:
    """Return the problem for an unexpected database error: usually a schema of another release."""
    get_services().schema.work()
    mismatch = get_services().schema.mismatch
    return _unexpected(error) if mismatch is None else _of_detections_error(errors.DatabaseUnfit(_sentence(mismatch)))


def check_schema() -> None:
    """Raise DatabaseUnfit if the database has another release's schema. Call it before a view that uses it."""
    mismatch = get_services().schema.mismatch
    if mismatch is not None:
        raise errors.DatabaseUnfit(_sentence(mismatch))


def _sentence(mismatch: str) -> str:
    return f"{mismatch[0].upper()}{mismatch[1:]}."


def _of_http(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    name = "not-found" if status == HTTPStatus.NOT_FOUND else HTTPStatus(status).phrase.lower().replace(" ", "-")
    response = problem(status, name, error.name, _detail(error))
    for header, value in error.get_headers():
        if header not in ("Content-Type", "Content-Length"):
            response.headers[header] = value
    return response


def _detail(error: HTTPException) -> str:
    path = (request.script_root + request.path)[:MAX_SHOWN]
    if isinstance(error, NotFound):
        return f"Nothing is at {path!r}; {url_for('openapi.document')} lists the paths."
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        allowed = ", ".join(sorted(error.valid_methods))
        return f"{request.method[:MAX_SHOWN]} is not allowed for {path!r}; use {allowed}."
    return error.description or error.name


def _replace_precondition_failed(response: Response) -> Response:
    """Replace werkzeug's response to a failed `If-Match`, which is 412 with the file as its body."""
    if response.status_code != HTTPStatus.PRECONDITION_FAILED or response.mimetype == MIMETYPE:
        return response
    response.close()
    return _of_http(PreconditionFailed())


def _unexpected(error: Exception) -> Response:
    log.error("unexpected_error", exc_info=error)
    return problem(
        500, "internal", "Internal error", "An unexpected error occurred; the request id leads to its log entry."
    )
