"""Every refusal as `application/problem+json` (RFC 9457): one table from exception to status."""

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
_COME_AGAIN = {423: 1.0, 429: 60.0, 503: 1.0}
"""Statuses after which the same request may succeed, and after how many seconds where the error does not say."""

PROBLEMS: dict[type[errors.DetectionsError], tuple[int, str, str]] = {
    errors.MalformedUpload: (400, "malformed-upload", "The request cannot be understood"),
    errors.Unauthorized: (401, "unauthorized", "No acceptable token"),
    errors.Forbidden: (403, "forbidden", "Not allowed"),
    errors.MediaNotFound: (404, "not-found", "No such media"),
    errors.UploadTimedOut: (408, "upload-timed-out", "The client stopped sending"),
    errors.UploadNotFound: (404, "not-found", "No such upload"),
    errors.UploadGone: (410, "gone", "The upload has expired"),
    errors.WrongOffset: (409, "wrong-offset", "The part does not begin where the last one ended"),
    errors.UploadLocked: (423, "locked", "Another request is writing the upload"),
    errors.ChecksumMismatch: (460, "checksum-mismatch", "The bytes are not those that were meant"),
    errors.TooManyUploads: (429, "too-many-uploads", "Too many unfinished uploads"),
    errors.UnsupportedProtocol: (412, "unsupported-version", "Not a version of tus that is spoken here"),
    errors.MediaIdCollision: (409, "media-id-collision", "The id exists with other content"),
    errors.NotParked: (409, "not-parked", "Nothing is parked"),
    errors.AlreadyProcessing: (409, "already-processing", "A run is under way"),
    errors.NotProcessing: (409, "not-processing", "No run is under way"),
    errors.MediaTooLarge: (413, "too-large", "Too large"),
    errors.UnsupportedMedia: (415, "unsupported-media", "Not a supported kind of file"),
    errors.Undecodable: (422, "undecodable", "The media cannot be decoded"),
    errors.StorageFailed: (500, "storage-failed", "The disk refused the file"),
    errors.Unavailable: (503, "unavailable", "Not available now"),
    errors.DetectorFailed: (503, "unavailable", "The detector broke"),
    errors.StorageFull: (507, "storage-full", "No room for the file"),
}


def problem(status: int, name: str, title: str, detail: str, **extra: Any) -> Response:
    """A problem document; `extra` members stand beside the standard ones."""
    g.problem = name
    body = {"type": TYPE_BASE + name, "title": title, "status": status, "detail": detail}
    body |= {"requestId": g.get("request_id")} | extra
    return Response(json.dumps(body), status, mimetype=MIMETYPE)


def as_document(error: errors.DetectionsError) -> dict[str, Any]:
    """The problem document that the error would be answered with, without the id of a request."""
    status, name, title = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    body = {"type": TYPE_BASE + name, "title": title, "status": status, "detail": str(error)}
    return body | _named_media(getattr(error, "media_id", None))


def install(app: Flask) -> None:
    """Answer every exception of a view with a problem."""
    app.register_error_handler(errors.DetectionsError, _ours)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(DBAPIError, _of_database)
    app.register_error_handler(Exception, _unforeseen)
    app.after_request(_without_the_file)


def _ours(error: errors.DetectionsError) -> Response:
    entry = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)
    if entry is None:
        return _unforeseen(error)
    status, name, title = entry
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(
        error, errors.DatabaseFailed
    ):  # logged once a minute
        log.warning("refused", status=status, problem=name, detail=str(error), cause=repr(error.__cause__))
    response = problem(status, name, title, str(error), **_named_media(getattr(error, "media_id", None)))
    if isinstance(error, errors.WrongOffset):
        response.headers["Upload-Offset"] = str(error.offset)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in _COME_AGAIN:
        response.headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after", _COME_AGAIN[status])))
    return response


def _named_media(media_id: str | None) -> dict[str, str]:
    """The members that lead to the media item that a problem is about."""
    return {} if media_id is None else {"mediaId": media_id, "mediaUrl": url_for("media.show", media_id=media_id)}


def _of_database(error: DBAPIError) -> Response:
    """What no statement was written for: a schema of another release, in most cases."""
    get_services().schema.work()
    trouble = get_services().schema.mismatch
    return _unforeseen(error) if trouble is None else _ours(errors.DatabaseUnfit(_sentence(trouble)))


def refuse_other_schemas() -> None:
    """To be called before a view that asks the database; raises DatabaseUnfit where its schema is another release's."""
    trouble = get_services().schema.mismatch
    if trouble is not None:
        raise errors.DatabaseUnfit(_sentence(trouble))


def _sentence(trouble: str) -> str:
    return f"{trouble[0].upper()}{trouble[1:]}."


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
        return f"There is nothing at {path!r}; {url_for('openapi.document')} lists what there is."
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"{request.method[:MAX_SHOWN]} cannot be done to {path!r}; {', '.join(sorted(error.valid_methods))} can."
    return error.description or error.name


def _without_the_file(response: Response) -> Response:
    """werkzeug answers a failed `If-Match` with 412, and the file as its body."""
    if response.status_code != HTTPStatus.PRECONDITION_FAILED or response.mimetype == MIMETYPE:
        return response
    response.close()
    return _of_http(PreconditionFailed())


def _unforeseen(error: Exception) -> Response:
    log.error("unforeseen_error", exc_info=error)
    return problem(500, "internal", "Internal error", "Something broke here; the request id leads to its log entry.")
