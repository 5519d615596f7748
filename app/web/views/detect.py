"""POST /detect and POST /detect/{id}: run detection on an upload or a stored media item."""

from http import HTTPStatus

from flask import Blueprint, Response, g, jsonify, url_for

from app import serializers
from app.current import get_services
from app.database import ReadTransaction
from app.database.models import DetectionRun, RunFailure, RunState
from app.detection.protocol.requests import Job, OpenFile
from app.errors import MediaTooLarge, Unavailable, Undecodable
from app.queries import media_items
from app.queries.run_results import Frames
from app.runs.lifecycle import RunRequest
from app.settings import MIN_CONFIDENCE
from app.web import parameters, request_slot
from app.web.auth.authentication import authenticate
from app.web.upload import upload_request
from app.web.views import results

blueprint = Blueprint("detect", __name__)
blueprint.before_request(authenticate)


@blueprint.post("/detect")
def detect_upload() -> Response:
    """Store the file, record the media item, run detection, and return the result."""
    run_request = _run_request()
    rerun = parameters.flag("rerun", default=False)
    if not parameters.flag("persist", default=True):
        return _detect_in_memory(run_request)
    runs = get_services().runs
    if not get_services().executor.idle:  # an idle detector means that no run waits
        runs.ensure_capacity(g.user_id)
    with upload_request.receive_upload() as upload, get_services().speculative_run(run_request) as run:
        ingested = get_services().ingest.run(upload, run.record, on_received=run.begin)
        media_id = ingested.media.id
        if not ingested.duplicate:
            run_id = run.recorded()
        elif rerun:
            run_id = runs.start_new(media_id, run_request)
        else:
            run_id = runs.find_or_start(media_id, run_request)
        return _respond(media_id, run_id, duplicate=ingested.duplicate)


@blueprint.post("/detect/<media_id>")
def detect_stored(media_id: str) -> Response:
    """Start a new run on a stored media item, adopting it first if only the annotations service knows it."""
    run_request = _run_request()
    with request_slot.slot():
        get_services().runs.ensure_capacity(g.user_id)
        get_services().adoption.ensure_known(media_id, g.user_id)
        run_id = get_services().runs.start_new(media_id, run_request)
        return _respond(media_id, run_id, duplicate=True)


def _run_request() -> RunRequest:
    settings = get_services().settings
    return RunRequest(
        user_id=g.user_id,
        confidence=parameters.number(
            "confidence", default=settings.detector_confidence, least=MIN_CONFIDENCE, maximum=1
        ),
        frame_interval=parameters.number("frameInterval", default=settings.frame_interval, above=0, maximum=3600),
        request_id=g.request_id,
    )


def _detect_in_memory(run_request: RunRequest) -> Response:
    if get_services().settings.detection == "off":
        raise Unavailable("persist=false is not available, because DETECTION is off.", retry_after=60)
    # `Prefer: respond-async` is ignored, because nothing is stored that the client could fetch later.
    with request_slot.slot():
        get_services().executor.ensure_capacity(g.user_id)
        with upload_request.receive_unstored_picture() as picture:
            job = Job(OpenFile(picture.fd), "Image", run_request.confidence, run_request.frame_interval)
            detected = get_services().executor.detect(job, get_services().settings.sync_wait, user=g.user_id)
    return jsonify(
        media={
            "id": picture.virtual_id,
            "name": picture.name,
            "mediaType": "Image",
            "mediaStatus": None,
            "userId": g.user_id,
            "sizeBytes": picture.size,
            "checksum": picture.checksum,
            "createdAt": None,
            "run": None,
            "delivery": None,
        },
        duplicate=False,
        annotations=serializers.detections(result for result in detected.results if result.objects),
        warnings=detected.warnings,
    )


def _respond(media_id: str, run_id: int, *, duplicate: bool) -> Response:
    waits = not parameters.prefers_async()
    ended = waits and get_services().waiters.wait(run_id, get_services().settings.sync_wait, get_services().is_serving)
    if not ended:
        return _accepted(media_id, duplicate=duplicate, preferred=not waits)
    view, run, frames = get_services().queries.fetch(_fetch_result, media_id, run_id)
    if run.state == RunState.FAILED and run.failure == RunFailure.UNDECODABLE:
        raise Undecodable(run.error or "", media_id)
    if run.state == RunState.FAILED and run.failure == RunFailure.TOO_LARGE:
        raise MediaTooLarge(run.error or "", media_id)
    media = serializers.media(media_items.MediaView(view.media, run, view.stream))
    response = results.respond({"media": media, "duplicate": duplicate}, frames)
    response.status_code = HTTPStatus.OK if duplicate else HTTPStatus.CREATED
    response.headers["Location"] = url_for("media.show", media_id=media_id)
    return response


def _fetch_result(
    session: ReadTransaction, media_id: str, run_id: int
) -> tuple[media_items.MediaView, DetectionRun, Frames]:
    run = media_items.run_of(session, run_id)
    return media_items.view(session, media_id), run, Frames.of(session, run)


def _accepted(media_id: str, *, duplicate: bool, preferred: bool) -> Response:
    view = get_services().queries.fetch(media_items.view, media_id)
    response = jsonify(media=serializers.media(view), duplicate=duplicate)
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = url_for("media.show", media_id=media_id)
    if preferred:
        response.headers["Preference-Applied"] = "respond-async"
    return response
