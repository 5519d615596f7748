"""Resumable uploads by tus 1.0.0: create, append, terminate, HEAD for tus clients, and GET for everybody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

from flask import Blueprint, Response, g, jsonify, request, url_for

from app import serializers
from app.current import get_services
from app.database.models import DetectionRun, ResumableUpload, RunFailure, RunState
from app.errors import DetectionsError, MediaTooLarge, Undecodable
from app.formats.timestamps import rfc3339
from app.queries import media_items
from app.resumable.finishing import stored_error
from app.resumable.metadata import file_metadata
from app.resumable.parts import Part
from app.resumable.uploads import NewUpload
from app.web import parameters, request_slot
from app.web.auth.authentication import authenticate
from app.web.metrics.process import process_metrics
from app.web.problems import as_document
from app.web.upload import tus_headers
from app.web.upload.body import check_part, open_part
from app.web.upload.method_override import is_head_request

blueprint = Blueprint("uploads", __name__)
blueprint.before_request(authenticate)


@blueprint.before_request
def _check_version() -> None:
    if request.method != "OPTIONS" and (request.method != "GET" or is_head_request()):
        tus_headers.check_version()


@blueprint.after_request
def _set_version(response: Response) -> Response:
    response.headers["Tus-Resumable"] = tus_headers.VERSION
    if "created_upload" in g:
        response.headers["Location"] = url_for("uploads.show", upload_id=g.created_upload)
    if request.method == "OPTIONS" or response.status_code == HTTPStatus.PRECONDITION_FAILED:
        tus_headers.set_protocol_headers(response, get_services().resumable.max_bytes)
    return response


@blueprint.route("/uploads", methods=["OPTIONS"])
@blueprint.route("/uploads/<upload_id>", methods=["OPTIONS"])
def options(**_upload: str) -> Response:
    """Return the supported protocol; needs no token."""
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.post("/uploads")
def create() -> Response:
    """Create an upload: empty, with its first part, or from partial ones."""
    service = get_services()
    metadata = request.headers.get("Upload-Metadata", "")
    parts = tus_headers.parts_of_final()
    is_partial = parts is None and "Upload-Concat" in request.headers
    if not is_partial and file_metadata(metadata).detect and not service.executor.idle:
        service.runs.ensure_capacity(g.user_id)
    service.database.ensure_usable()
    if parts is not None:
        upload = service.resumable.concatenate(g.user_id, metadata, parts, request_slot.slot)
    else:
        upload = service.resumable.create(NewUpload(g.user_id, metadata, tus_headers.new_length(), is_partial))
    g.created_upload = upload.id  # error responses from here on have its Location too
    with _counting_errors(upload.id):
        if parts is not None:
            upload = service.resumable.finish_if_complete(upload.id, g.user_id, request_slot.slot, g.request_id)
        elif tus_headers.has_part():
            upload = service.resumable.append(upload.id, g.user_id, _part(0), request_slot.slot)
    _count(upload)
    response = Response(status=HTTPStatus.CREATED)
    tus_headers.set_upload_headers(response, upload)
    return response


@blueprint.get("/uploads/<upload_id>")
def show(upload_id: str) -> Response:
    """Return the upload's state. HEAD, for tus clients, also stops the request that is writing it."""
    if is_head_request():
        upload = get_services().resumable.finish_if_complete(upload_id, g.user_id, request_slot.slot, g.request_id)
        response = Response(status=HTTPStatus.OK)
        tus_headers.set_creation_headers(response, upload)
    else:
        upload = get_services().resumable.find(upload_id, g.user_id)
        response = jsonify(_document(upload))
    tus_headers.set_upload_headers(response, upload)
    return response


@blueprint.patch("/uploads/<upload_id>")
def append(upload_id: str) -> Response:
    """Append a part. The last part's response follows the recording of the media item, or is the error."""
    tus_headers.check_part_type()
    part = _part(tus_headers.offset())
    with _counting_errors(upload_id):
        upload = get_services().resumable.append(upload_id, g.user_id, part, request_slot.slot)
    _count(upload)
    error = _error_of_run(upload, parameters.preferred_wait())
    if error is not None:
        raise error
    response = Response(status=HTTPStatus.NO_CONTENT)
    tus_headers.set_upload_headers(response, upload)
    return response


@blueprint.delete("/uploads/<upload_id>")
def terminate(upload_id: str) -> Response:
    """Delete the upload; the media item that it became stays."""
    get_services().resumable.terminate(upload_id, g.user_id, request_slot.slot)
    return Response(status=HTTPStatus.NO_CONTENT)


def _count(upload: ResumableUpload) -> None:
    """Count the upload in the metrics if it is complete."""
    if upload.state == "complete" and upload.kind != "partial":
        g.ended_upload = "duplicate" if upload.duplicate else "stored"


@contextmanager
def _counting_errors(upload_id: str) -> Iterator[None]:
    """Count the upload in the metrics, by its problem, if it ends with an error in the block."""
    try:
        yield
    except DetectionsError:
        with suppress(DetectionsError):
            if get_services().resumable.find(upload_id, g.user_id).error is not None:
                g.ended_upload = "refused"
        raise


def _part(offset: int) -> Part:
    environ, idle_timeout = request.environ, get_services().settings.upload_idle_timeout

    def receive(check: Callable[[], None]) -> Iterator[bytes | memoryview]:
        source = open_part(environ, idle_timeout=idle_timeout, check=check)
        return process_metrics().received(iter(source.read, b""))

    return Part(
        offset=offset,
        receive=receive,
        size=check_part(environ),
        length=tus_headers.number("Upload-Length") if request.method == "PATCH" else None,
        checksum=tus_headers.checksum(),
        request_id=g.request_id,
    )


def _document(upload: ResumableUpload) -> dict[str, object]:
    error = _error_of_run(upload) if upload.error is None else stored_error(upload)
    media = None
    if upload.state == "complete" and upload.media_id is not None:
        media = serializers.media(get_services().queries.fetch(media_items.view, upload.media_id))
    return {
        "state": "failed" if error is not None else upload.state,
        "offset": upload.received,
        "length": upload.length,
        "expiresAt": rfc3339(upload.expires_at),
        "media": media,
        "duplicate": upload.duplicate,
        "problem": None if error is None else as_document(error),
    }


def _error_of_run(upload: ResumableUpload, wait: float = 0.0) -> DetectionsError | None:
    """Return the error with which the run of a complete upload failed, waiting up to `wait` seconds for its end."""
    if upload.state != "complete" or upload.media_id is None or not file_metadata(upload.upload_metadata).detect:
        return None
    run = _last_run(upload.media_id)
    if wait and run is not None and run.state in (RunState.QUEUED, RunState.RUNNING):
        with request_slot.slot():
            get_services().waiters.wait(run.id, min(wait, get_services().settings.sync_wait), get_services().is_serving)
        run = _last_run(upload.media_id)
    if run is None or run.state != RunState.FAILED:
        return None
    kind = {RunFailure.UNDECODABLE: Undecodable, RunFailure.TOO_LARGE: MediaTooLarge}.get(RunFailure(run.failure or ""))
    return None if kind is None else kind(run.error or "", upload.media_id)


def _last_run(media_id: str) -> DetectionRun | None:
    return get_services().queries.fetch(media_items.view, media_id).run
