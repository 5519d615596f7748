"""Media items without detection: store, list, show, download, follow."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, jsonify, request, send_file, url_for

from app import serializers
from app.current import get_services
from app.database import ReadTransaction
from app.database.models import DetectionRun, Media
from app.media.types import MEDIA_TYPES, extension_of
from app.queries import media_items
from app.queries.run_results import Frames
from app.storage import open_stored
from app.web import parameters, request_slot
from app.web.upload import upload_request
from app.web.views import events, results
from app.web.views.links import authenticate_by_link_or_token

blueprint = Blueprint("media", __name__)
blueprint.before_request(authenticate_by_link_or_token)
blueprint.before_request(parameters.ignore_impossible_dates)

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_RUN = 2**53 - 1
"""The largest integer that every JSON parser can represent."""


@blueprint.post("/media")
def store() -> Response:
    """Store the file and record the media item, without detection."""
    with upload_request.receive_upload() as upload:
        ingested = get_services().ingest.run(upload)
    view = _fetch_view(ingested.media.id) if ingested.duplicate else media_items.view_of_new(ingested.media)
    response = jsonify(media=serializers.media(view), duplicate=ingested.duplicate)
    response.status_code = HTTPStatus.OK if ingested.duplicate else HTTPStatus.CREATED
    response.headers["Location"] = url_for("media.show", media_id=ingested.media.id)
    return response


@blueprint.get("/media")
def index() -> Response:
    """List media items, newest first, by page."""
    status = parameters.choice("status", ("1", "2", "3", "6"))
    page = get_services().queries.fetch(
        media_items.page,
        status=int(status) if status else None,
        media_type=parameters.choice("type", ("Video", "Image")),
        limit=parameters.integer("limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT) or DEFAULT_LIMIT,
        cursor=request.args.get("cursor"),
    )
    return jsonify(items=[serializers.media(view) for view in page.items], nextCursor=page.next_cursor)


@blueprint.get("/media/<media_id>")
def show(media_id: str) -> Response:
    """Return the record with its last run and its delivery state."""
    return jsonify(serializers.media(_fetch_view(media_id)))


@blueprint.get("/media/<media_id>/detections")
def detections(media_id: str) -> Response:
    """Return the results of a run, or of the last finished one; with `from` and `to`, those of a part of the video."""
    run_id = parameters.integer("run", default=None, minimum=1, maximum=MAX_RUN)
    from_seconds, to_seconds = parameters.seconds("from"), parameters.seconds("to")
    run, frames = get_services().queries.fetch(_run_and_frames, media_id, run_id, from_seconds, to_seconds)
    return results.respond({"run": serializers.run(run)}, frames)


@blueprint.delete("/media/<media_id>/run")
def cancel_run(media_id: str) -> Response:
    """Cancel the run under way; allowed for its user and for administrators."""
    _fetch_view(media_id)
    get_services().runs.cancel(media_id, g.user_id, user=None if g.is_admin else g.user_id)
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.get("/media/<media_id>/content")
def content(media_id: str) -> Response:
    """Return the content, with Range. The id serves as validator, because a stored file never changes."""
    media = _fetch_view(media_id).media
    parameters.ignore_impossible_ranges(media.size_bytes)
    release = request_slot.take()
    try:
        response = _file_of(media)
    except BaseException:
        release()
        raise
    _call_on_sent(response, release)
    response.headers["Cache-Control"] = "private, no-cache"
    # Pages of other origins may show the content: they need a token or a signed link, which browsers never add.
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


def _file_of(media: Media) -> Response:
    """Return the file or the requested range, by descriptor, because the file at its path may change meanwhile."""
    file = os.fdopen(open_stored(Path(media.path), media.size_bytes), "rb")
    try:
        response = send_file(
            file,
            mimetype=MEDIA_TYPES[extension_of(media.path)].content_type,
            as_attachment=True,
            download_name=media.name,
            conditional=False,
            etag=media.id,
            last_modified=os.fstat(file.fileno()).st_mtime,
            max_age=None,
        )
        response.content_length = media.size_bytes
        response.make_conditional(request.environ, accept_ranges=True, complete_length=media.size_bytes)
    except BaseException:
        file.close()
        raise
    return response


@blueprint.get("/media/<media_id>/events")
def follow(media_id: str) -> Response:
    """Stream progress, status and annotations as server-sent events until no run is under way."""
    _fetch_view(media_id)
    release = request_slot.take(following=True)
    stream: Iterator[str] = events.stream(get_services(), media_id, request.headers.get("Last-Event-ID"))
    response = Response(stream, mimetype="text/event-stream")
    response.call_on_close(release)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _fetch_view(media_id: str) -> media_items.MediaView:
    return get_services().queries.fetch(media_items.view, media_id)


def _run_and_frames(
    session: ReadTransaction, media_id: str, run_id: int | None, from_seconds: float | None, to_seconds: float | None
) -> tuple[DetectionRun, Frames]:
    if run_id is None:
        run = media_items.last_finished_run(session, media_id)
    else:
        run = media_items.run_of_media(session, media_id, run_id)
    return run, Frames.of(session, run, from_seconds, to_seconds)


def _call_on_sent(response: Response, callback: Callable[[], None]) -> None:
    """Call `callback` once when a file was sent or abandoned: servers close such a response's body only."""
    body: Any = response.response
    closing = ExitStack()
    closing.callback(callback)
    closing.callback(body.close)
    body.close = closing.close
