"""The reference annotations service as a Flask application: routes, request log, problems.

It stands for the service that the detections service reports to, so that delivery can be tested and shown over
real HTTP against something that knows the contract as well as the sender does.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Blueprint, Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.demo import rules
from app.demo.bearer import BearerRule
from app.demo.reference_store import Arrival, ReferenceStore, Reply
from app.demo.rules import Refusal

MAX_BODY_BYTES = 64 * 1024
_MAX_LOGGED_ID = 64


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
    exactly `static_token`. Its ReferenceStore is `app.extensions["annotations"]`.
    """
    store = ReferenceStore(database)
    app = Flask("annotations")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["annotations"] = store
    bearer = BearerRule(secret, static_token, identity_claim, audience, issuer, clock)
    app.register_blueprint(_media_routes(store, bearer))
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _refused_by_flask)

    @app.before_request
    def arrive() -> None:
        """Log the request before anything is checked."""
        if is_logged():
            g.index = store.arrived(arrival())

    @app.after_request
    def leave(response: Response) -> Response:
        if is_logged():
            store.answered(g.index, None if "unanswered" in g else response.status_code)
        return response

    @app.get("/_log")
    def log() -> Response:
        after = request.args.get("after", "0")
        if not after.isdecimal():
            raise Refusal(400, "invalid-parameter", "'after' must be an index.", "after")
        return jsonify(store.log(int(after)))

    return app


def is_logged() -> bool:
    """Whether the request at hand is one of the service's, and not about the service itself."""
    return not request.path.startswith("/_")


def _media_routes(store: ReferenceStore, bearer: BearerRule) -> Blueprint:
    routes = Blueprint("media", __name__, url_prefix="/api/media")

    @routes.post("")
    def create() -> Response:
        caller = bearer.caller(request.headers.get("Authorization"))
        record = rules.message_body(request.mimetype, request.get_data(), rules.CREATE_FIELDS)
        key = rules.idempotency_key(request.headers.get("Idempotency-Key"))
        seq = None
        if caller.delegated or "X-Outbox-Seq" in request.headers:
            seq = rules.sequence_number(request.headers.get("X-Outbox-Seq"))
        if caller.delegated and caller.identity != record["userId"]:
            raise Refusal(403, "other-identity", "The token acts for another identity than userId.", "userId")
        return _accepted(store.create(g.index, key, record, seq, _epoch()))

    @routes.put("/<media_id>/status")
    def change_status(media_id: str) -> Response:
        bearer.caller(request.headers.get("Authorization"))
        body = rules.message_body(request.mimetype, request.get_data(), rules.STATUS_FIELDS)
        key = rules.idempotency_key(request.headers.get("Idempotency-Key"))
        seq = rules.sequence_number(request.headers.get("X-Outbox-Seq"))
        reply = store.change_status(g.index, key, media_id, body["mediaStatus"], seq, _epoch())
        return _accepted(reply)

    @routes.get("/<media_id>")
    def show(media_id: str) -> Response:
        bearer.caller(request.headers.get("Authorization"))
        return jsonify(store.record(media_id))

    @routes.get("")
    def index() -> Response:
        bearer.caller(request.headers.get("Authorization"))
        return jsonify(store.records())

    return routes


def arrival() -> Arrival:
    """The request at hand."""
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
    return problem(refusal.status, refusal.kind, refusal.detail, refusal.field)


def _refused_by_flask(error: HTTPException) -> Response:
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(code, error.name.lower().replace(" ", "-"), error.description or error.name)


def problem(status: int, kind: str, detail: str, field: str | None = None) -> Response:
    """A refusal as this service tells it."""
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
