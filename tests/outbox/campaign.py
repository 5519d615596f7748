"""Rows 12, 29, 36, 38 and 40 of docs/reliability.md with their full figures: what an answer means, over real HTTP.

    python -m tests.outbox.campaign [--only NAME] [--kind sqlite|postgresql] [--small]

Each part fills an outbox, lets a dispatcher deliver it to an annotations service that fails in some way, and checks the
records of both sides and the time taken. Prints a table; exit 1 if a part fails. `--small` is the form of the test
suite.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count

import structlog
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from app.annotations import AnnotationsClient
from app.annotations.tokens import MintedTokens
from app.database import Database
from app.database.models import Media, MediaStatus, OutboxMessage, OutboxStream
from app.media.status import change_status, create_media
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.dispatcher import Dispatcher, DispatcherLimits
from app.outbox.queue import OutboxQueue
from benchmarks.places import places
from tests.outbox.every_answer import FATES
from tests.outbox.other_side import Answered, Arrival, Fate, OtherSide

SECRET = "k" * 32
HTML = Answered(200, b"<!DOCTYPE html><title>Sign in</title>", media_type="text/html")
ANOTHER_API = Answered(200, b'{"error": "no such route", "status": 404}')


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a part: media items, those of a held user that wait; `outage`, `work`, `deadline` in seconds."""

    items: int
    waiting: int
    outage: float
    work: float
    deadline: float


FULL = Size(items=1000, waiting=100_000, outage=60.0, work=14.0, deadline=10.0)
SMALL = Size(items=30, waiting=300, outage=3.0, work=0.7, deadline=0.5)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a part; `problems` is empty if it passed."""

    figure: str
    problems: Sequence[str]


class Outbox:
    """An outbox on a fresh database, with a dispatcher that delivers it to `url`."""

    def __init__(self, database: Database, url: str, deadline: float = 10.0) -> None:
        self.database = database
        self.queue = OutboxQueue(database.now)
        self.breaker = CircuitBreaker(url, database.now)
        self._client = AnnotationsClient(url, MintedTokens(SECRET), deadline_seconds=deadline)
        limits = DispatcherLimits(lease=2 * deadline + 10.0, deadline=deadline + 1.0)
        self.dispatcher = Dispatcher(database, self.queue, self.breaker, self._client.deliver, limits=limits)

    def add(self, count: int, *, user_id: str = "ada", first: int = 0, statuses: bool = True) -> list[str]:
        """Add media items with a create and, with `statuses`, two statuses each."""
        media_ids = [f"{first + number:016x}" for number in range(count)]
        with self.database.write_transaction() as session:
            for media_id in media_ids:
                media = Media(
                    id=media_id, name="photo.jpg", path=f"/images/{media_id}.jpg", media_type="Image", user_id=user_id,
                    size_bytes=1, created_at=1.0,
                )  # fmt: skip
                create_media(session, self.queue, media, request_id=None)
                for status in (MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED) if statuses else ():
                    change_status(session, self.queue, media_id, status, request_id=None)
        return media_ids

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Dispatch within the block."""
        self.dispatcher.start()
        try:
            yield
        finally:
            self.dispatcher.stop()
            self._client.close()

    def pending(self, user_prefix: str = "") -> int:
        """Count waiting messages, without parked ones, of users whose names have the prefix."""
        waiting = select(func.coalesce(func.sum(OutboxStream.last_seq - OutboxStream.acked_seq), 0)).where(
            OutboxStream.due_at.is_not(None), OutboxStream.user_id.startswith(user_prefix)
        )
        with self.database.read_transaction() as session:
            return int(session.scalar(waiting) or 0)

    def parked(self) -> list[str]:
        with self.database.read_transaction() as session:
            return list(session.scalars(select(OutboxStream.media_id).where(OutboxStream.parked_at.is_not(None))))

    def delivered(self) -> list[tuple[str, int]]:
        """Return the media id and the status of each delivered message."""
        with self.database.read_transaction() as session:
            rows = session.execute(
                select(OutboxMessage.media_id, OutboxMessage.payload).where(OutboxMessage.delivered_at.is_not(None))
            )
            return [(row.media_id, int(row.payload["mediaStatus"])) for row in rows]

    def drain(self, limit: float, user_prefix: str = "") -> float:
        """Wait until no message of these users waits; return the seconds, or infinity after `limit`."""
        began = time.monotonic()
        while self.pending(user_prefix):
            if time.monotonic() - began > limit:
                return float("inf")
            time.sleep(0.02)
        return time.monotonic() - began


def missing(outbox: Outbox, other: OtherSide) -> list[str]:
    """Messages that count as delivered here but are missing there."""
    told: dict[str, int] = {}
    for media_id, status in outbox.delivered():
        told[media_id] = max(told.get(media_id, 0), status)
    return [
        f"{media_id}: {status} delivered, {other.status_of(media_id)} there"
        for media_id, status in told.items()
        if (other.status_of(media_id) or 0) < status
    ]


def wrong_answerer(database: Database, size: Size) -> Result:
    """Row 29: HTML and another API's JSON error are no deliveries; 204 and an empty 201 are."""
    problems: list[str] = []
    strange = [HTML]
    with OtherSide(lambda _arrival: strange[0] if strange else None) as other:
        outbox = Outbox(database, other.url)
        outbox.add(size.items)
        with outbox.delivering():
            for wrong in (HTML, ANOTHER_API):
                strange[:] = [wrong]
                time.sleep(size.outage / 2)
                delivered, parked = len(outbox.delivered()), len(outbox.parked())
                if delivered or parked:
                    problems.append(f"{delivered} delivered, {parked} parked by {wrong.body!r}")
            strange.clear()
            seconds = outbox.drain(60.0)
        problems += missing(outbox, other)
    empty = iter((204, 201))
    last = {}

    def without_a_body(arrival: Arrival) -> Answered:
        last[arrival.media_id] = next(empty)
        return Answered(last[arrival.media_id])

    with OtherSide(without_a_body) as other:
        outbox = Outbox(database, other.url)
        outbox.add(2, first=1 << 40, statuses=False)
        with outbox.delivering():
            if outbox.drain(30.0) == float("inf"):
                problems.append("204 and an empty 201 are no deliveries")
    return Result(f"0 delivered by a wrong answerer; {size.items * 3} after it in {seconds:.1f} s", problems)


def half_well(database: Database, size: Size) -> Result:
    """Row 36: every second answer is 503; 200 messages in at most 20 s, fewer in the small form."""
    messages = min(200, 2 * size.items)
    with OtherSide(lambda arrival: Answered(503) if arrival.number % 2 else None) as other:
        outbox = Outbox(database, other.url)
        outbox.add(messages, statuses=False)
        with outbox.delivering():
            seconds = outbox.drain(60.0)
        problems = missing(outbox, other) + [f"parked: {media_id}" for media_id in outbox.parked()]
    return Result(f"{messages} messages in {seconds:.1f} s", problems + ([] if seconds <= 20 else ["more than 20 s"]))


def total_outage(database: Database, size: Size) -> Result:
    """Row 36: everything is 503; at most 25 requests in the first five seconds."""
    with OtherSide(lambda _arrival: Answered(503)) as other:
        outbox = Outbox(database, other.url)
        outbox.add(size.items)
        with outbox.delivering():
            time.sleep(5.5)
        requests = other.arrived_within(5.0)
    return Result(f"{requests} requests in 5 s", [] if requests <= 25 else ["more than 25"])


def held_user(database: Database, size: Size, *, refusal: Answered, half: bool = False) -> Result:
    """Row 36: one user of ten is refused with much waiting; with `half`, every fourth answer is 503 as well."""

    def rule(arrival: Arrival) -> Answered | None:
        if arrival.user_id == "held":
            return refusal
        return Answered(503) if half and arrival.number % 4 == 0 else None

    took: list[float] = []
    problems: list[str] = []
    with OtherSide(rule) as other:
        for held in (False, True):
            outbox = Outbox(database, other.url)
            if held:
                for part in range(0, size.waiting, 5000):
                    outbox.add(min(5000, size.waiting - part), user_id="held", first=(1 << 48) + part, statuses=False)
            for user in range(9):
                outbox.add(size.items // 9, user_id=f"user-{user}", first=(1 << 32) * (1 + user + 9 * held))
            with outbox.delivering():
                took.append(outbox.drain(120.0, "user-"))
            problems = missing(outbox, other) + [f"parked: {media_id}" for media_id in outbox.parked()]
    ratio = took[1] / took[0]
    probes = sum(arrival.user_id == "held" for _at, arrival in other.arrivals)
    if ratio > 1.2 and size is FULL and not half:  # in the small form, and with waits of seconds, it says nothing
        problems.append("more than 1.2")
    if probes > 40:  # what was under way when the first was answered, and the probes since
        problems.append(f"{probes} requests of the held user")
    return Result(f"others' messages in {took[1]:.2f} s against {took[0]:.2f} s without ({ratio:.2f})", problems)


def refused_by_all(database: Database, size: Size, *, method: str, status: int) -> Result:
    """Row 38: every message of a kind is refused for a while; nothing is parked, and all arrive soon after."""
    ends = [time.monotonic() + size.outage]

    def rule(arrival: Arrival) -> Answered | None:
        refused = arrival.method in method and time.monotonic() < ends[0]
        return Answered(status, b'{"title": "a bad deploy"}') if refused else None

    with OtherSide(rule) as other:
        outbox = Outbox(database, other.url)
        outbox.add(size.items)
        ends[0] = time.monotonic() + size.outage
        with outbox.delivering():
            time.sleep(size.outage)
            seconds = outbox.drain(90.0)
        problems = missing(outbox, other) + [f"parked: {media_id}" for media_id in outbox.parked()]
    figure = f"{size.items} items, nothing parked, all delivered {seconds:.1f} s after the return"
    return Result(figure, problems + ([] if seconds <= 60 else ["more than 60 s"]))


def refused_among_others(database: Database, size: Size) -> Result:
    """Row 38: one item is refused among others: parked at its second attempt, the others go on."""
    attempts = []

    def rule(arrival: Arrival) -> Answered | None:
        if arrival.media_id != f"{0:016x}":
            return None
        attempts.append(arrival.number)
        return Answered(422)

    with OtherSide(rule) as other:
        outbox = Outbox(database, other.url)
        outbox.add(1)
        with outbox.delivering():
            for number in range(1, 41):
                outbox.add(1, first=number)
                time.sleep(0.1)
            seconds = outbox.drain(20.0)
        parked = outbox.parked()
    right = parked == [f"{0:016x}"] and len(attempts) == 2
    return Result(
        f"parked at its attempt {len(attempts)}, 40 others delivered",
        [] if right and seconds < 20 else [f"parked {parked}, {len(attempts)} attempts"],
    )


RECORD_RULES: dict[str, Callable[[Arrival], Answered | None]] = {
    "a GET": lambda _arrival: None,
    "GET absent": lambda _arrival: Answered(405),
    "GET forbidden": lambda _arrival: Answered(403),
    "GET lean": lambda _arrival: Answered(200, b"{}"),
}


def at_work(database: Database, size: Size, *, record_rule: str) -> Result:
    """Row 40: first requests exceed the deadline and are killed before or after their commit; meanwhile their keys get
    409. No missing message counts as delivered, and no applied message is parked."""
    fates = (Fate(applied=False), Fate(applied=True), None)
    with OtherSide(
        work=lambda _arrival: size.work,
        fate=lambda arrival: fates[int(arrival.media_id, 16) % 3],
        record_rule=RECORD_RULES[record_rule],
    ) as other:
        outbox = Outbox(database, other.url, size.deadline)
        media_ids = outbox.add(max(6, size.items // 50))
        with outbox.delivering():
            seconds = outbox.drain(30 * size.work + 60)
        problems = missing(outbox, other) + [f"parked: {media_id}" for media_id in outbox.parked()]
        problems += [f"{one} is at {other.status_of(one)} there" for one in media_ids if other.status_of(one) != 3]
    return Result(f"{len(media_ids)} items, all there, in {seconds:.1f} s", problems)


def every_answer(database: Database, size: Size) -> Result:
    """Row 12: the first request of each message is answered by one of all the codes, cuts, framings and delays that
    there are, applied before it or not. Each message is applied once and in its order."""
    media = max(len(FATES) // 3 + 1, size.items // 2)
    numbers = count()

    def fate(_arrival: Arrival) -> Fate | None:
        return FATES[next(numbers) % len(FATES)]

    with OtherSide(fate=fate, work=lambda arrival: size.work if arrival.number % 97 == 0 else 0.0) as other:
        outbox = Outbox(database, other.url, size.deadline)
        for first in range(0, media, 10):  # several users: some answers hold theirs
            outbox.add(min(10, media - first), user_id=f"user-{first}", first=first)
        with outbox.delivering():
            seconds = outbox.drain(900.0)
        problems = [f"parked: {media_id}" for media_id in outbox.parked()] + missing(outbox, other)
        wrong = {media_id: told for media_id, told in other.statuses.items() if told != [1, 2, 3]}
        problems += [f"{media_id}: {told}" for media_id, told in wrong.items()]
        problems += [] if len(other.statuses) == media else [f"{len(other.statuses)} of {media} arrived"]
    return Result(f"{3 * media} messages by {len(other.arrivals)} requests in {seconds:.1f} s", problems)


Part = Callable[[Database, Size], Result]
_HELD = {
    "401": Answered(401),
    "403": Answered(403),
    "429 for 30 s": Answered(429, headers={"Retry-After": "30"}),
}


def parts() -> dict[str, Part]:
    """Return every part by its name."""
    found: dict[str, Part] = {
        "12 every answer": every_answer,
        "29 wrong answerer": wrong_answerer,
        "36 half well": half_well,
        "36 total outage": total_outage,
    }
    for name, refusal in _HELD.items():
        found[f"36 one user {name}"] = partial(held_user, refusal=refusal)
    found["36 all at once"] = partial(held_user, refusal=_HELD["403"], half=True)
    found["38 422 for all"] = partial(refused_by_all, method="POST PUT", status=422)
    found["38 404 for every PUT"] = partial(refused_by_all, method="PUT", status=404)
    found["38 one among others"] = refused_among_others
    for record_rule in RECORD_RULES:
        found[f"40 at work, {record_rule}"] = partial(at_work, record_rule=record_rule)
    return found


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only parts whose names contain this")
    parser.add_argument("--kind", choices=["sqlite", "postgresql"])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    table, broken = Table("row", "database", "figure", "problems", box=None), False
    with places() as at:
        for name, part in parts().items():
            for kind in ("sqlite", "postgresql"):
                if options.only not in name or options.kind not in (None, kind):
                    continue
                with closing(Database(at.url(kind))) as database:
                    result = part(database, SMALL if options.small else FULL)
                broken |= bool(result.problems)
                row = (name, kind, result.figure, "; ".join(result.problems[:5]))
                table.add_row(*row)
                print(*row, sep=" | ", flush=True)
    Console(width=160).print(table)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
