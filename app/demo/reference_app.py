"""The reference annotations service as a Flask application: routes, request log, planted failures, problems.

It stands for the service that the detections service reports to, so that delivery can be tested and shown over
real HTTP against something that knows the contract as well as the sender does.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Blueprint, Flask, Request, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.demo import faults, rules
from app.demo.bearer import BearerRule
from app.demo.faults import FaultQueue, KeysAtWork
from app.demo.loopback_server import DROP_CONNECTION, MAX_BODY_BYTES
from app.demo.reference_store import Arrival, ReferenceStore, Reply
from app.demo.rules import Refusal

_MAX_LOGGED_ID = 64

observers: list[Callable[[Request, Response], object]] = []
"""Called with every request of the media routes and with its answer, before that is sent: for tests."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of, at `app.extensions["annotations"]`."""

    store: ReferenceStore
    faults: FaultQueue
    bearer: BearerRule
    at_work: KeysAtWork


def create_annotations_app(
    database: Path,
    secret: str,
    *,
    static_token: str | None = None,
    identity_claim: str = "sub",
    audience: str | None = None,
    issuer: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """Return the application with its data in the SQLite file `database`, made where it is missing.

    It accepts JWTs of HS256 with `secret` (and `audience` and `issuer` where given) that are valid by `clock`, or
    exactly `static_token`.
    """
    parts = Parts(
        ReferenceStore(database),
        FaultQueue(),
        BearerRule(secret, static_token, identity_claim, audience, issuer, clock),
        KeysAtWork(),
    )
    app = Flask("annotations")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["annotations"] = parts
    app.register_blueprint(_media_routes(parts))
    app.register_blueprint(_control_routes(parts))
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _refused_by_flask)
    app.before_request(lambda: _arrive(parts))
    app.after_request(lambda response: _leave(parts, response))
    return app


def _media_routes(parts: Parts) -> Blueprint:
    routes = Blueprint("media", __name__, url_prefix="/api/media")

    @routes.post("")
    def create() -> Response:
        caller = parts.bearer.caller(request.headers.get("Authorization"))
        record = rules.message_body(request.mimetype, request.get_data(), rules.CREATE_FIELDS)
        key = rules.idempotency_key(request.headers.get("Idempotency-Key"))
        seq = None
        if caller.delegated or "X-Outbox-Seq" in request.headers:
            seq = rules.sequence_number(request.headers.get("X-Outbox-Seq"))
        if caller.delegated and caller.identity != record["userId"]:
            raise Refusal(403, "other-identity", "The token acts for another identity than userId.", "userId")
        return _accepted(parts.store.create(g.index, key, record, seq, _epoch()))

    @routes.put("/<media_id>/status")
    def change_status(media_id: str) -> Response:
        parts.bearer.caller(request.headers.get("Authorization"))
        body = rules.message_body(request.mimetype, request.get_data(), rules.STATUS_FIELDS)
        key = rules.idempotency_key(request.headers.get("Idempotency-Key"))
        seq = rules.sequence_number(request.headers.get("X-Outbox-Seq"))
        reply = parts.store.change_status(g.index, key, media_id, body["mediaStatus"], seq, _epoch())
        return _accepted(reply)

    @routes.get("/<media_id>")
    def show(media_id: str) -> Response:
        parts.bearer.caller(request.headers.get("Authorization"))
        return jsonify(parts.store.record(media_id))

    @routes.get("")
    def index() -> Response:
        parts.bearer.caller(request.headers.get("Authorization"))
        return jsonify(parts.store.records())

    return routes


def _control_routes(parts: Parts) -> Blueprint:
    routes = Blueprint("control", __name__)

    @routes.get("/_log")
    def log() -> Response:
        after = request.args.get("after", "0")
        if not after.isdecimal():
            raise Refusal(400, "invalid-parameter", "'after' must be an index.", "after")
        return jsonify(parts.store.log(int(after)))

    @routes.post("/_control")
    def control() -> Response:
        faults.obey(parts.faults, request.get_json(force=True))
        return jsonify({"waiting": parts.faults.waiting()})

    return routes


def _arrive(parts: Parts) -> Response | None:
    """Log the request before anything is judged, and let a planted failure happen to it."""
    g.fault = g.key = None
    if request.blueprint == "control":
        return None
    arrival = _arrival()
    g.index = parts.store.arrived(arrival)
    if arrival.idempotency_key:
        if not parts.at_work.begin(arrival.idempotency_key):
            return _problem(409, "key-at-work", "A request with this Idempotency-Key is still being worked on.")
        g.key = arrival.idempotency_key
    g.fault = fault = parts.faults.take(arrival.method, arrival.media_id)
    if fault is None:
        return None
    g.interrupted = not parts.faults.pause(fault.delay)
    if g.interrupted or fault.ends_the_request:
        return Response(status=HTTPStatus.SERVICE_UNAVAILABLE)  # replaced in _leave
    return None


def _leave(parts: Parts, response: Response) -> Response:
    if request.blueprint == "control":
        return response
    for observe in observers:
        observe(request, response)
    fault = g.fault
    if g.key:
        parts.at_work.end(g.key)
    if fault is not None and (fault.close or g.interrupted):
        parts.store.answered(g.index, None)
        request.environ[DROP_CONNECTION]()
        return response
    if fault is not None:
        if fault.status is not None:
            response = _problem(fault.status, "planted-failure", "This failure was asked for.")
        if fault.body is not None:
            response.set_data(fault.body)
        response.headers.update(fault.headers)
    parts.store.answered(g.index, response.status_code)
    return response


def _arrival() -> Arrival:
    try:
        raw = request.get_data()
    except RequestEntityTooLarge:
        raw = b""  # refused with 413 by whoever reads it next
    try:
        body = rules.parse_json(raw)
    except ValueError:
        body = raw.decode(errors="replace")
    try:
        seq: int | None = rules.sequence_number(request.headers.get("X-Outbox-Seq"))
        epoch = _epoch()
    except Refusal:
        epoch, seq = 1, None
    return Arrival(
        method=request.method,
        path=request.path,
        media_id=_media_id(body),
        epoch=epoch,
        seq=seq,
        idempotency_key=request.headers.get("Idempotency-Key"),
        request_id=request.headers.get("X-Request-Id"),
        body=body,
    )


def _media_id(body: Any) -> str | None:
    named = (request.view_args or {}).get("media_id") or (body.get("id") if isinstance(body, dict) else None)
    return named if isinstance(named, str) and named.isascii() and len(named) <= _MAX_LOGGED_ID else None


def _epoch() -> int:
    """The first one where the sender does not tell."""
    return rules.sequence_number(request.headers.get("X-Outbox-Epoch", "1"), "X-Outbox-Epoch")


def _accepted(reply: Reply) -> Response:
    response = jsonify(reply.body)
    response.status_code = reply.status
    return response


def _refused(refusal: Refusal) -> Response:
    return _problem(refusal.status, refusal.kind, refusal.detail, refusal.field)


def _refused_by_flask(error: HTTPException) -> Response:
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return _problem(code, error.name.lower().replace(" ", "-"), error.description or error.name)


def _problem(status: int, kind: str, detail: str, field: str | None = None) -> Response:
    document = {
        "type": f"/problems/{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "requestId": request.headers.get("X-Request-Id") or str(uuid4()),
    }
    response = jsonify(document if field is None else document | {"field": field})
    response.status_code = status
    response.content_type = "application/problem+json"
    return response
