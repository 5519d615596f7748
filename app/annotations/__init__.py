"""The annotations service's client: one message in, what came of it out, classified.

`deliver` never raises for trouble of the network or of the other service; what an answer means is decided in
`app.annotations.classify` and `app.annotations.conflict`, and that no send outlasts its deadline is kept by
`app.http_exchange`.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from app.annotations.classify import REDIRECTS, SUCCESS, Sent, classify, classify_error
from app.annotations.conflict import CONFLICT, Look, Sight, classify_conflict
from app.annotations.excerpts import presentable
from app.annotations.exchange import Conversation
from app.annotations.tokens import TokenSource
from app.errors import RecordsNotReadable, Unavailable
from app.formats.timestamps import rfc3339
from app.http_exchange.deadline import DeadlineSession, Endpoint, trusting_context
from app.http_exchange.resolver import Resolver
from app.http_exchange.responses import Response, TransportError
from app.media.hashing import MEDIA_ID
from app.outbox.messages import Classification, Kind, Message

MAX_EXCERPT = 500
MAX_DETAIL = 300
NOT_FOUND = 404
NOT_READABLE = (401, 403, 405, 501)
"""Answers to a GET that say that nobody, or not this service, may look."""

NOTHING_TO_SEE = (404, 405, 501)
"""Answers to a GET that say that there is nothing there to ask, or nothing to see."""


class AnnotationsClient:
    """Delivers messages to the service at `url`, from any number of threads.

    A delivery, with all the requests that it takes, ends within `deadline_seconds`; connecting, within
    `connect_timeout`. `ca_file` names authorities to trust beside the system's. Raises SettingsError for a bad URL.
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
        self._tls = trusting_context(ca_file) if self._endpoint.scheme == "https" else None
        self._resolver = resolver or Resolver()
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: WeakSet[DeadlineSession] = WeakSet()
        self._of_thread = threading.local()

    def __repr__(self) -> str:
        return f"AnnotationsClient({self._endpoint.origin}{self._endpoint.base})"

    def deliver(self, message: Message) -> Classification:
        """Send one message and classify what comes back."""
        ends_at = time.monotonic() + self._deadline_seconds
        talk = self._talk(message.user_id, ends_at)
        method, path = _target(message)
        try:
            response = talk.ask(method, path, _headers(message), json.dumps(message.payload).encode())
        except TransportError as error:
            found = classify_error(self._sent(talk, message), error, sent_before=talk.sent)
        else:
            found = self._classified(talk, message, response, ends_at)
        return _presentable(found, talk.tokens_used)

    def look(self, media_id: str, user_id: str) -> dict[str, Any] | None:
        """The service's record of a media; None if it has none, or cannot be looked at.

        Raises Unavailable where it gives no proper answer.
        """
        if not MEDIA_ID.fullmatch(media_id):
            return None
        try:
            reply = self._talk(user_id, time.monotonic() + self._deadline_seconds).ask("GET", _media_path(media_id))
        except TransportError as error:
            raise Unavailable("The annotations service, which may know this media, does not answer.") from error
        if reply.status in NOTHING_TO_SEE:
            return None
        record = reply.record() if reply.status in SUCCESS else None
        if record is None:
            raise Unavailable(
                f"The annotations service, which may know this media, gave no proper answer ({reply.status})."
            )
        return record

    def find(self, media_id: str, user_id: str) -> dict[str, Any] | None:
        """The service's record of a media item; None where it says that it has none.

        Raises RecordsNotReadable where it lets nobody look (no such call, forbidden, a redirect, a page for people, the
        record of another item), Unavailable where it does not answer, or cannot now.
        """
        call = f"GET {self._endpoint.base}{_media_path(media_id)}"
        try:
            reply = self._talk(user_id, time.monotonic() + self._deadline_seconds).ask("GET", _media_path(media_id))
        except TransportError as error:
            raise Unavailable(f"{call}: {error.reason}") from error
        record = reply.record()
        if reply.status in SUCCESS and record is not None and record.get("id", media_id) == media_id:
            return record
        if reply.status == NOT_FOUND and not reply.is_html:
            return None
        refused = reply.status in (*SUCCESS, *REDIRECTS, NOT_FOUND, *NOT_READABLE)
        raise (RecordsNotReadable if refused else Unavailable)(
            f"{call} answered {reply.status}{_unlike(reply, record)}"
        )

    def close(self) -> None:
        """Close the idle connections. A request under way is finished; a later one opens a connection anew."""
        with self._lock:
            sessions, self._sessions = list(self._sessions), WeakSet()
            self._of_thread = threading.local()
        for session in sessions:
            session.close()

    def _sent(self, talk: Conversation, message: Message) -> Sent:
        unknown = message.outcome_unknown or talk.outcome_unknown
        call = talk.call(*_target(message))
        return Sent(message, call, unknown, self._tokens.is_one_for_all, self._clock())

    def _classified(self, talk: Conversation, message: Message, response: Response, ends_at: float) -> Classification:
        sent = self._sent(talk, message)
        if response.status != CONFLICT:
            return classify(sent, response)
        look = self._look(talk, message.media_id, message)
        reference = None
        if message.reference is not None and look.not_now is None and look.sight is not Sight.THERE:
            theirs = self._talk(message.reference.user_id, ends_at)
            reference = self._look(theirs, message.reference.media_id, message)
            talk.tokens_used += theirs.tokens_used
        return classify_conflict(sent, response, look, reference)

    def _look(self, talk: Conversation, media_id: str, message: Message) -> Look:
        path = _media_path(media_id)
        found: Response | TransportError
        try:
            found = talk.ask("GET", path, _tracing(message))
        except TransportError as error:
            found = error
        return Look(talk.call("GET", path), media_id, found)

    def _talk(self, user_id: str, ends_at: float) -> Conversation:
        session: DeadlineSession | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = DeadlineSession(self._endpoint, self._resolver, self._connect_timeout, self._tls)
            with self._lock:
                self._sessions.add(session)
                self._of_thread.session = session
        return Conversation(session, self._tokens, user_id, ends_at=ends_at)


def _unlike(response: Response, record: dict[str, Any] | None) -> str:
    """What is wrong with an answer that has the status of one that brings a record."""
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
    if message.kind is Kind.CREATE:
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
    return {"X-Request-Id": message.request_id} if message.request_id else {}
