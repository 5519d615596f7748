"""The outbox for administrators: how it stands, what is in it, and the repairs that the commands make too."""

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
MAX_NAMED = 1000
MOST_SHOWN = 1000
"""Messages of one media item in one answer, and attempts: a week of retries has thousands."""

MAX_REASON = 500
NOT_CONFIGURED_SECONDS = 60
_REASON = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_REASON}}}")


@blueprint.get("")
def status() -> Response:
    """What waits, since when, how the circuit breaker stands, and who is held."""
    return jsonify(get_services().queries.fetch(get_services().outbox_status, get_services().counts))


@blueprint.get("/throughput")
def throughput() -> Response:
    """Messages delivered in each minute of the last hour, oldest first."""
    minutes = get_services().queries.fetch(listing.throughput, get_services().database.now)
    return jsonify(minutes=[{"at": rfc3339(one.at), "delivered": one.delivered} for one in minutes])


@blueprint.get("/messages")
def messages() -> Response:
    """Messages of one state, a page at a time."""
    page = get_services().queries.fetch(
        listing.page,
        state=cast(listing.State, parameters.choice("state", listing.STATES) or "pending"),
        limit=parameters.integer("limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT) or DEFAULT_LIMIT,
        cursor=request.args.get("cursor"),
    )
    return jsonify(items=[serializers.message(*pair) for pair in page.items], nextCursor=page.next_cursor)


@blueprint.get("/media/<media_id>")
def show(media_id: str) -> Response:
    """One media's newest messages with their newest attempts."""
    _check_id(media_id)
    return _history(media_id)


@blueprint.post("/retry")
def retry() -> Response:
    """Put parked media back to pending: those named, all, or those whose park reason contains a text."""
    with request_slot.slot():
        media_ids, reason = _wanted(json_body.read_object())
        retried = get_services().outbox_admin.retry(media_ids, reason=reason)
    return jsonify(retried=len(retried))


@blueprint.post("/media/<media_id>/skip")
def skip(media_id: str) -> Response:
    """Drop the head message of a parked media, recorded as skipped."""
    _check_id(media_id)
    get_services().outbox_admin.skip(media_id)
    return _history(media_id)


@blueprint.post("/media/<media_id>/resend")
def resend(media_id: str) -> Response:
    """Say one media item again, if its record is missing or behind at the annotations service."""
    _check_id(media_id)
    auditor = get_services().auditor()
    if auditor is None:
        raise Unavailable("ANNOTATIONS_URL is not set: there is nobody to say anything to.", NOT_CONFIGURED_SECONDS)
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
    return jsonify(serializers.history(get_services().queries.fetch(listing.history, media_id, newest=MOST_SHOWN)))


def _check_id(media_id: str) -> None:
    if not MEDIA_ID.fullmatch(media_id):
        raise MediaNotFound(f"No message was ever written for a media {media_id!r}.")


def _wanted(body: dict[str, Any]) -> tuple[list[str] | None, str | None]:
    """Which media (None: all parked ones), and the text that their park reasons contain."""
    match body:
        case {"all": True, **rest} if not rest:
            return None, None
        case {"mediaIds": list(ids), **rest} if not rest:
            return _ids(ids), None
        case {"reason": str(reason), **rest} if not rest:
            if not _REASON.fullmatch(reason):
                raise MalformedUpload(f"reason must be 1 to {MAX_REASON} characters, none of them a control character.")
            return None, reason
    raise MalformedUpload('The body must be {"mediaIds": ["…"]}, {"all": true} or {"reason": "…"}, and one of them.')


def _ids(ids: list[Any]) -> list[str]:
    if not 0 < len(ids) <= MAX_NAMED:
        raise MalformedUpload(f"mediaIds must name 1 to {MAX_NAMED} media, not {len(ids)}.")
    for one in ids:
        if not (isinstance(one, str) and MEDIA_ID.fullmatch(one)):
            raise MalformedUpload(f"mediaIds has {str(one)[:80]!r}, which is no media id.")
    return ids
