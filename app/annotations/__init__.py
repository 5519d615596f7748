"""The annotations service's client: one message in, one judged Answer out.

`deliver` never raises for trouble of the network or of the other service; what an answer means is decided in
`app.annotations.verdicts`, and that no send outlasts its deadline is kept by `app.annotations.deadline`.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from app.annotations.conversation import Conversation
from app.annotations.deadline import DeadlineSession, Endpoint, trusting_context
from app.annotations.replies import NoAnswer, Reply, presentable
from app.annotations.resolver import Resolver
from app.annotations.verdicts import (
    CONFLICT,
    NO_LOOK,
    REDIRECTS,
    SUCCESS,
    judge,
    judge_no_answer,
    reconcile,
)
from app.errors import RecordsNotReadable, Unavailable
from app.outbox.messages import Answer, Kind, Message
from app.timestamps import rfc3339
from app.tokens import TokenSource

MAX_EXCERPT = 500
MAX_DETAIL = 300
NOT_FOUND = 404
NOT_READABLE = (401, 403, 405, 501)
"""Answers to a GET that say that nobody, or not this service, may look."""

MEDIA_ID = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)


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
        self._endpoint = Endpoint.parse(url)
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

    def deliver(self, message: Message) -> Answer:
        """Send one message and judge what comes back."""
        talk = self._talk(message.user_id)
        method, path = _target(message)
        call = talk.call(method, path)
        try:
            reply = talk.ask(method, path, _headers(message), json.dumps(message.payload).encode())
        except NoAnswer as trouble:
            doubtful = message.uncertain or talk.doubtful
            answer = judge_no_answer(call, trouble, doubtful=doubtful, sent_before=talk.sent)
        else:
            answer = self._judge(talk, message, call, reply)
        return replace(
            answer,
            detail=presentable(answer.detail, talk.tokens_used, MAX_DETAIL),
            excerpt=presentable(answer.excerpt, talk.tokens_used, MAX_EXCERPT),
        )

    def look(self, media_id: str, user_id: str) -> dict[str, Any] | None:
        """The service's record of a media; None if it has none, or cannot be looked at.

        Raises Unavailable where it gives no proper answer.
        """
        if not MEDIA_ID.fullmatch(media_id):
            return None
        try:
            reply = self._talk(user_id).ask("GET", _media_path(media_id))
        except NoAnswer as trouble:
            raise Unavailable("The annotations service, which may know this media, does not answer.") from trouble
        if reply.status in NO_LOOK:
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
            reply = self._talk(user_id).ask("GET", _media_path(media_id))
        except NoAnswer as error:
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
        self._resolver.close()

    def _judge(self, talk: Conversation, message: Message, call: str, reply: Reply) -> Answer:
        doubtful = message.uncertain or talk.doubtful
        if reply.status != CONFLICT:
            return judge(message, call, reply, doubtful=doubtful, now=self._clock())
        path = _media_path(message.media_id)
        found: Reply | NoAnswer
        try:
            found = talk.ask("GET", path, _tracing(message))
        except NoAnswer as trouble:
            found = trouble
        return reconcile(message, call, reply, talk.call("GET", path), found, doubtful=doubtful, now=self._clock())

    def _talk(self, user_id: str) -> Conversation:
        session: DeadlineSession | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = DeadlineSession(self._endpoint, self._resolver, self._connect_timeout, self._tls)
            with self._lock:
                self._sessions.add(session)
                self._of_thread.session = session
        ends_at = time.monotonic() + self._deadline_seconds
        return Conversation(session, self._endpoint, self._tokens, user_id, ends_at=ends_at)


def _unlike(reply: Reply, record: dict[str, Any] | None) -> str:
    """What is wrong with an answer that has the status of one that brings a record."""
    if reply.is_html:
        return " with HTML"
    if reply.status not in SUCCESS:
        return ""
    return " without a JSON object" if record is None else " with the record of another media item"


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
