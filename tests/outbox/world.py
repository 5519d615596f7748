"""An outbox for tests: media items with messages, dispatchers run turn by turn, and a receiver with set answers.

Nothing is patched: a Dispatcher takes its `deliver` function and its clocks.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, event, func, select
from sqlalchemy.exc import OperationalError

from app.database import Database
from app.database.models import Media, MediaStatus, OutboxAttempt, OutboxCircuit, OutboxMessage, OutboxStream
from app.media.status import change_status, create_media
from app.outbox.circuit import Circuit, Hold
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.dispatcher import Dispatcher, DispatcherLimits
from app.outbox.messages import Classification, Deliver, Message, Outcome, Verdict
from app.outbox.queue import OutboxQueue
from app.outbox.retry_policy import RetryPolicy, fixed
from tests.eventually import eventually

ENDPOINT = "http://annotations.test"
MEDIA_WAIT = 10.0
CIRCUIT_WAIT = 2.0
UNFIT_WAIT = 1.0
HOLD_WAIT = 3.0
LIMITED_WAIT = 10.0
LEASE = 30.0
GIVE_UP = 20.0
"""Seconds of real time after which a test that waits has failed."""

OK = Classification(Verdict.DELIVERED, "200", 200)
DUPLICATE = Classification(Verdict.DELIVERED, "409, the same there", 409, Outcome.DUPLICATE)
SERVER_ERROR = Classification(Verdict.RETRY, "500", 500)
LOST = Classification(Verdict.RETRY, "the answer was lost", outcome_unknown=True)
REFUSED = Classification(Verdict.REFUSED, "422", 422)
CONTRADICTED = Classification(Verdict.PARK, "409, a video there", 409)
NOT_FOUND = Classification(
    Verdict.RETRY_LIMITED, "404", 404, conclusion=Classification(Verdict.REFUSED, "404 for long", 404)
)
UNCONFIRMED = Classification(Verdict.RETRY_LIMITED, "409, not there", 409, outcome_unknown=True)
HELD = Classification(Verdict.HOLD, "403", 403)
BUSY = Classification(Verdict.UNFIT, "503", 503)
UNREACHABLE = Classification(Verdict.UNFIT, "connection refused", unsent=True)


def busy_for(seconds: float) -> Classification:
    """Return a 503 with a Retry-After."""
    return Classification(Verdict.UNFIT, f"503, come back in {seconds:g} s", 503, retry_after=seconds)


def held_for(seconds: float) -> Classification:
    """Return a 429 with a Retry-After."""
    return Classification(Verdict.HOLD, f"429, come back in {seconds:g} s", 429, retry_after=seconds)


def short_waits() -> RetryPolicy:
    """Return a policy with fixed waits between claims and none within a claim."""
    return RetryPolicy(
        media_wait=fixed(MEDIA_WAIT),
        circuit_wait=fixed(CIRCUIT_WAIT),
        unfit_wait=fixed(UNFIT_WAIT),
        hold_wait=fixed(HOLD_WAIT),
        limited_wait=fixed(LIMITED_WAIT),
        wait_within_claim=fixed(0),
    )


@contextmanager
def commits_that_seem_to_fail(database: Database) -> Iterator[None]:
    """Within the block each commit succeeds, but the connection breaks before the database reports it."""

    def commit_and_lose_the_answer(connection: Connection) -> None:
        connection.connection.commit()
        raise OperationalError("COMMIT", None, ConnectionError("the server closed the connection"))

    event.listen(database.writer, "commit", commit_and_lose_the_answer)
    try:
        yield
    finally:
        event.remove(database.writer, "commit", commit_and_lose_the_answer)


class Receiver:
    """The other side: answers each media item from its list, then with `otherwise`; keeps what arrived, in order."""

    def __init__(self, otherwise: Classification = OK) -> None:
        self.otherwise = otherwise
        self.arrived: list[Message] = []
        self.most_at_once = 0
        self._scripts: dict[str, deque[Classification]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._at_once = 0

    def answer(self, media_id: str, *answers: Classification) -> None:
        self._scripts[media_id].extend(answers)

    @property
    def seen(self) -> list[tuple[str, int]]:
        return [(message.media_id, message.seq) for message in self.arrived]

    def of(self, media_id: str) -> list[int]:
        return [message.seq for message in self.arrived if message.media_id == media_id]

    def __call__(self, message: Message) -> Classification:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.arrived.append(message)
            script = self._scripts[message.media_id]
            answer = script.popleft() if script else self.otherwise
        try:
            return self.respond(message, answer)
        finally:
            with self._lock:
                self._at_once -= 1

    def respond(self, _message: Message, answer: Classification) -> Classification:
        return answer


class SlowReceiver(Receiver):
    """Holds every request until `release` is set."""

    def __init__(self, otherwise: Classification = OK) -> None:
        super().__init__(otherwise)
        self.release = threading.Event()

    def respond(self, _message: Message, answer: Classification) -> Classification:
        assert self.release.wait(GIVE_UP), "the test never let the receiver answer"
        return answer

    def wait_for(self, count: int) -> None:
        """Wait until `count` requests have arrived."""
        eventually(lambda: len(self.arrived) >= count, f"{count} requests")


class World:
    """One database's outbox. Its dispatchers are stopped at the end."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = OutboxQueue(database.now)
        self.breaker = CircuitBreaker(ENDPOINT, database.now)
        self._made = 0
        self._dispatchers: list[Dispatcher] = []
        self._slow: list[SlowReceiver] = []

    def close(self) -> None:
        for receiver in self._slow:
            receiver.release.set()
        for dispatcher in self._dispatchers:
            dispatcher.finish()

    def dispatcher(
        self,
        deliver: Deliver,
        *,
        workers: int = 8,
        lease: float = LEASE,
        deadline: float = 12.0,
        policy: RetryPolicy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Dispatcher:
        limits = DispatcherLimits(workers=workers, lease=lease, deadline=deadline)
        made = Dispatcher(
            self.database,
            self.queue,
            self.breaker,
            deliver,
            policy=policy or short_waits(),
            limits=limits,
            monotonic=monotonic,
        )
        self._dispatchers.append(made)
        return made

    def slow_receiver(self, otherwise: Classification = OK) -> SlowReceiver:
        """Return a receiver that answers when it is released, at the latest when the test ends."""
        self._slow.append(SlowReceiver(otherwise))
        return self._slow[-1]

    def media(self, *statuses: MediaStatus, user_id: str = "user-1") -> str:
        """Add a media item with its create message and one message for each further status."""
        self._made += 1
        media_id = f"{self._made:016x}"
        media = Media(
            id=media_id,
            name="photo.jpg",
            path=f"/images/{media_id}.jpg",
            media_type="Image",
            user_id=user_id,
            size_bytes=1,
            created_at=1.0,
        )
        with self.database.write_transaction() as session:
            create_media(session, self.queue, media, request_id="request-1")
        for status in statuses:
            self.change(media_id, status)
        return media_id

    def change(self, media_id: str, status: MediaStatus) -> None:
        with self.database.write_transaction() as session:
            change_status(session, self.queue, media_id, status, request_id=None)

    def drive(self, dispatcher: Dispatcher) -> None:
        """Run turns until nothing is due and none of the dispatcher's messages is in flight."""
        give_up = time.monotonic() + GIVE_UP
        while time.monotonic() < give_up:
            pause = dispatcher.turn()
            if pause > 0 and not self.leased_to(dispatcher, still=True):
                return
            dispatcher.sleep(min(pause, 0.02))
        raise AssertionError("the dispatcher found no end")

    def leased_to(self, dispatcher: Dispatcher, *, still: bool = False) -> int:
        """Count the streams leased to an owner; with `still`, those whose lease has not expired."""
        owned = select(func.count()).where(OutboxStream.lease_owner == dispatcher.owner)
        if still:
            owned = owned.where(OutboxStream.due_at > self.database.now)
        with self.database.read_transaction() as session:
            return session.scalar(owned) or 0

    def stream(self, media_id: str) -> OutboxStream:
        with self.database.read_transaction() as session:
            return session.get_one(OutboxStream, media_id)

    def values(self, media_id: str) -> dict[str, object]:
        """Return every column of a stream."""
        stream = self.stream(media_id)
        return {column.key: getattr(stream, column.key) for column in OutboxStream.__table__.columns}

    def streams(self) -> Iterable[OutboxStream]:
        with self.database.read_transaction() as session:
            return session.scalars(select(OutboxStream).order_by(OutboxStream.media_id)).all()

    def messages(self, media_id: str) -> list[OutboxMessage]:
        with self.database.read_transaction() as session:
            rows = select(OutboxMessage).where(OutboxMessage.media_id == media_id).order_by(OutboxMessage.seq)
            return list(session.scalars(rows))

    def attempts(self, media_id: str) -> list[OutboxAttempt]:
        with self.database.read_transaction() as session:
            rows = select(OutboxAttempt).where(OutboxAttempt.media_id == media_id).order_by(OutboxAttempt.id)
            return list(session.scalars(rows))

    def circuit_row(self) -> OutboxCircuit:
        with self.database.read_transaction() as session:
            return session.get_one(OutboxCircuit, ENDPOINT)

    @property
    def circuit(self) -> Circuit:
        with self.database.read_transaction() as session:
            return self.breaker.fetch(session).endpoint.circuit

    @property
    def holds(self) -> dict[str, Hold]:
        with self.database.read_transaction() as session:
            return {one.user_id: one.hold for one in self.breaker.held_users(session)}

    def open_circuit(self, *, delay: float = CIRCUIT_WAIT, reason: str = "503") -> None:
        """Set the circuit as five unfit answers do."""
        with self.database.write_transaction() as session:
            found = self.breaker.lock(session)
            opened = replace(found.endpoint, circuit=Circuit().opened(found.now, delay, reason))
            self.breaker.save(session, found.endpoint, opened)

    def set_stream(self, media_id: str, **values: Any) -> None:
        """Set columns of a stream that would otherwise take long to reach."""
        with self.database.write_transaction() as session:
            row = session.get_one(OutboxStream, media_id)
            for name, value in values.items():
                setattr(row, name, value)
