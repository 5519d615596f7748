"""The client of the annotations service: sends messages, classifies the answers and fetches records.

`deliver` never raises for errors of the network or of the service. `app.annotations.classify` and
`app.annotations.conflict` classify answers; `app.http_exchange` keeps requests within their deadlines.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from app.annotations.classify import REDIRECTS, SUCCESS, SentRequest, classify, classify_error
from app.annotations.conflict import CONFLICT, Presence, RecordLookup, classify_conflict
from app.annotations.excerpts import presentable
from app.annotations.exchange import Exchange
from app.annotations.tokens import TokenSource
from app.errors import RecordsNotReadable, Unavailable
from app.formats import trace_context
from app.formats.timestamps import rfc3339
from app.http_exchange.deadline import DeadlineSession, Endpoint, create_tls_context
from app.http_exchange.resolver import Resolver
from app.http_exchange.responses import Response, TransportError
from app.media.hashing import MEDIA_ID
from app.outbox.messages import Classification, Message, MessageKind

MAX_EXCERPT = 500
MAX_DETAIL = 300
NOT_FOUND = 404
UNREADABLE_STATUSES = (401, 403, 405, 501)
"""Answers to a GET that say that records cannot be read, or not by this service."""

NO_RECORD_STATUSES = (404, 405, 501)
"""Answers to a GET that say that there is no record, or no GET."""


class AnnotationsClient:
    """Sends requests to the annotations service at `url`. Thread-safe.

    All requests of one delivery together take up to `deadline_seconds`, connecting up to `connect_timeout` seconds.
    `ca_file` names further trusted certificate authorities. Raises SettingsError for a malformed URL.
    """

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        *,
        deadline_seconds: float = 10.0,
        connect_timeout: float = 3.0,
        ca_file: str | None = None,
        resolver: Resolver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = Endpoint.parse(url, "ANNOTATIONS_URL")
        self._tokens = tokens
        self._deadline_seconds = deadline_seconds
        self._connect_timeout = connect_timeout
        self._tls = create_tls_context(ca_file) if self._endpoint.scheme == "https" else None
        self._resolver = resolver or Resolver()
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: WeakSet[DeadlineSession] = WeakSet()
        self._of_thread = threading.local()

    def __repr__(self) -> str:
        return f"AnnotationsClient({self._endpoint.origin}{self._endpoint.base})"

    def deliver(self, message: Message) -> Classification:
        """Send a message and classify the answer, or its absence."""
        ends_at = time.monotonic() + self._deadline_seconds
        exchange = self._exchange(message.user_id, ends_at)
        method, path = _target(message)
        try:
            response = exchange.send(method, path, _headers(message), json.dumps(message.payload).encode())
        except TransportError as error:
            found = classify_error(self._sent(exchange, message), error, sent_before=exchange.sent)
        else:
            found = self._classified(exchange, message, response, ends_at)
        return _presentable(found, exchange.tokens_used)

    def fetch_for_adoption(self, media_id: str, user_id: str) -> dict[str, Any] | None:
        """Return the service's record of a media item to adopt; None if it has none or has no GET.

        Raises Unavailable if the service does not answer, or not with a record.
        """
        if not MEDIA_ID.fullmatch(media_id):
            return None
        try:
            response = self._exchange(user_id, time.monotonic() + self._deadline_seconds).send(
                "GET", _media_path(media_id)
            )
        except TransportError as error:
            raise Unavailable("The annotations service, which may know this media item, does not answer.") from error
        if response.status in NO_RECORD_STATUSES:
            return None
        record = response.record() if response.status in SUCCESS else None
        if record is None:
            raise Unavailable(
                f"The annotations service, which may know this media item, answered {response.status} without a record."
            )
        return record

    def fetch_record(self, media_id: str, user_id: str) -> dict[str, Any] | None:
        """Return the service's record of a media item; None if the service answers that it has none.

        Raises RecordsNotReadable if the service does not let its records be read (no GET, forbidden, a redirect, HTML,
        the record of another media item), and Unavailable if it does not answer or cannot now.
        """
        call = f"GET {self._endpoint.base}{_media_path(media_id)}"
        try:
            response = self._exchange(user_id, time.monotonic() + self._deadline_seconds).send(
                "GET", _media_path(media_id)
            )
        except TransportError as error:
            raise Unavailable(f"{call}: {error.reason}") from error
        record = response.record()
        if response.status in SUCCESS and record is not None and record.get("id", media_id) == media_id:
            return record
        if response.status == NOT_FOUND and not response.is_html:
            return None
        refused = response.status in (*SUCCESS, *REDIRECTS, NOT_FOUND, *UNREADABLE_STATUSES)
        raise (RecordsNotReadable if refused else Unavailable)(
            f"{call} answered {response.status}{_mismatch(response, record)}"
        )

    def close(self) -> None:
        """Close the idle connections. A request under way is finished; a later one opens a new connection."""
        with self._lock:
            sessions, self._sessions = list(self._sessions), WeakSet()
            self._of_thread = threading.local()
        for session in sessions:
            session.close()

    def _sent(self, exchange: Exchange, message: Message) -> SentRequest:
        unknown = message.outcome_unknown or exchange.outcome_unknown
        call = exchange.call(*_target(message))
        return SentRequest(message, call, unknown, self._tokens.is_shared, self._clock())

    def _classified(self, exchange: Exchange, message: Message, response: Response, ends_at: float) -> Classification:
        sent = self._sent(exchange, message)
        if response.status != CONFLICT:
            return classify(sent, response)
        lookup = self._look_up(exchange, message.media_id, message)
        reference = None
        if message.reference is not None and lookup.retry_verdict is None and lookup.presence is not Presence.PRESENT:
            theirs = self._exchange(message.reference.user_id, ends_at)
            reference = self._look_up(theirs, message.reference.media_id, message)
            exchange.tokens_used += theirs.tokens_used
        return classify_conflict(sent, response, lookup, reference)

    def _look_up(self, exchange: Exchange, media_id: str, message: Message) -> RecordLookup:
        path = _media_path(media_id)
        found: Response | TransportError
        try:
            found = exchange.send("GET", path, _tracing(message))
        except TransportError as error:
            found = error
        return RecordLookup(exchange.call("GET", path), media_id, found)

    def _exchange(self, user_id: str, ends_at: float) -> Exchange:
        session: DeadlineSession | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = DeadlineSession(self._endpoint, self._resolver, self._connect_timeout, self._tls)
            with self._lock:
                self._sessions.add(session)
                self._of_thread.session = session
        return Exchange(session, self._tokens, user_id, ends_at=ends_at)


def _mismatch(response: Response, record: dict[str, Any] | None) -> str:
    """Return what is wrong with an answer of status 2xx that is not the record, as a suffix for a text."""
    if response.is_html:
        return " with HTML"
    if response.status not in SUCCESS:
        return ""
    return " without a JSON object" if record is None else " with the record of another media item"


def _presentable(found: Classification, secrets: list[str]) -> Classification:
    return replace(
        found,
        detail=presentable(found.detail, secrets, MAX_DETAIL),
        excerpt=presentable(found.excerpt, secrets, MAX_EXCERPT),
        conclusion=_presentable(found.conclusion, secrets) if found.conclusion else None,
    )


def _target(message: Message) -> tuple[str, str]:
    if message.kind is MessageKind.CREATE:
        return "POST", "/api/media"
    return "PUT", f"{_media_path(message.media_id)}/status"


def _media_path(media_id: str) -> str:
    return f"/api/media/{media_id}"


def _headers(message: Message) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": message.idempotency_key,
        "X-Outbox-Seq": str(message.seq),
        "X-Outbox-Epoch": str(message.epoch),
        "X-Outbox-Time": rfc3339(message.changed_at),
        **_tracing(message),
    }


def _tracing(message: Message) -> dict[str, str]:
    if not message.request_id:
        return {}
    return {
        "X-Request-Id": message.request_id,
        trace_context.HEADER: trace_context.traceparent_of(message.request_id, message.idempotency_key),
    }
