"""The outbox for administrators: status, messages, and the same repairs as the commands."""

import re
from typing import Any, cast

from flask import Blueprint, Response, jsonify, request

from app.current import get_services
from app.errors import MalformedUpload, MediaNotFound, Unavailable
from app.formats.timestamps import rfc3339
from app.media.hashing import MEDIA_ID
from app.outbox import listing, serializers
from app.outbox.resend import Resend, Selection
from app.web import parameters, request_slot
from app.web.auth.authentication import authenticate_admin
from app.web.upload import json_body

blueprint = Blueprint("outbox", __name__, url_prefix="/outbox")
blueprint.before_request(authenticate_admin)

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_IDS = 1000
MAX_SHOWN = 1000
"""Messages of one media item per response, and attempts; a week of retries has thousands."""

MAX_REASON = 500
NOT_CONFIGURED_SECONDS = 60
_REASON = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_REASON}}}")


@blueprint.get("")
def status() -> Response:
    """Return pending and parked messages, the circuit breaker and held users."""
    return jsonify(get_services().queries.fetch(get_services().outbox_status, get_services().counts))


@blueprint.get("/throughput")
def throughput() -> Response:
    """Return the messages delivered in each minute of the last hour, oldest first."""
    minutes = get_services().queries.fetch(listing.throughput, get_services().database.now)
    return jsonify(minutes=[{"at": rfc3339(minute.at), "delivered": minute.delivered} for minute in minutes])


@blueprint.get("/messages")
def messages() -> Response:
    """Return messages in one state, by page."""
    page = get_services().queries.fetch(
        listing.page,
        state=cast(listing.State, parameters.choice("state", listing.STATES) or "pending"),
        limit=parameters.integer("limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT) or DEFAULT_LIMIT,
        cursor=request.args.get("cursor"),
    )
    return jsonify(items=[serializers.message(*pair) for pair in page.items], nextCursor=page.next_cursor)


@blueprint.get("/media/<media_id>")
def show(media_id: str) -> Response:
    """Return a media item's newest messages with their newest attempts."""
    _check_id(media_id)
    return _history(media_id)


@blueprint.post("/retry")
def retry() -> Response:
    """Make parked media items pending again: those named, all, or those whose park reason contains a text."""
    with request_slot.slot():
        media_ids, reason = _selection(json_body.read_object())
        retried = get_services().outbox_admin.retry(media_ids, reason=reason)
    return jsonify(retried=len(retried))


@blueprint.post("/media/<media_id>/skip")
def skip(media_id: str) -> Response:
    """Skip the first message of a parked media item, and record that."""
    _check_id(media_id)
    get_services().outbox_admin.skip(media_id)
    return _history(media_id)


@blueprint.post("/media/<media_id>/resend")
def resend(media_id: str) -> Response:
    """Send one media item again if its remote record is missing or behind."""
    _check_id(media_id)
    auditor = get_services().auditor()
    if auditor is None:
        raise Unavailable("ANNOTATIONS_URL is not set.", NOT_CONFIGURED_SECONDS)
    if not auditor.expected([media_id]):
        raise MediaNotFound(f"There is no media item {media_id!r}.")
    with request_slot.slot():
        report = Resend(get_services().database, get_services().queue, auditor, wait_seconds=0).run(
            Selection([media_id])
        )
    messages = sum(count for _, _, count in report.resent)
    reasons = [reason for _, reason, _ in report.resent] + [reason for _, reason in report.left]
    return jsonify(mediaId=media_id, messages=messages, reason=reasons[0] if reasons else None)


def _history(media_id: str) -> Response:
    return jsonify(serializers.history(get_services().queries.fetch(listing.history, media_id, newest=MAX_SHOWN)))


def _check_id(media_id: str) -> None:
    if not MEDIA_ID.fullmatch(media_id):
        raise MediaNotFound(f"There are no messages of media {media_id!r}.")


def _selection(body: dict[str, Any]) -> tuple[list[str] | None, str | None]:
    """Return the media ids (None for all parked ones), and the text that park reasons must contain."""
    match body:
        case {"all": True, **rest} if not rest:
            return None, None
        case {"mediaIds": list(ids), **rest} if not rest:
            return _ids(ids), None
        case {"reason": str(reason), **rest} if not rest:
            if not _REASON.fullmatch(reason):
                raise MalformedUpload(f"reason must be 1 to {MAX_REASON} characters without control characters.")
            return None, reason
    raise MalformedUpload('The body must be exactly one of {"mediaIds": ["…"]}, {"all": true} and {"reason": "…"}.')


def _ids(ids: list[Any]) -> list[str]:
    if not 0 < len(ids) <= MAX_IDS:
        raise MalformedUpload(f"mediaIds must contain 1 to {MAX_IDS} ids, not {len(ids)}.")
    for media_id in ids:
        if not (isinstance(media_id, str) and MEDIA_ID.fullmatch(media_id)):
            raise MalformedUpload(f"mediaIds contains {str(media_id)[:80]!r}, which is not a media id.")
    return ids
