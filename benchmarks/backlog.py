"""Fills an outbox with a backlog and a history, by the database's own means, and measures what they may not slow down.

    python -m benchmarks.backlog [--waiting 400000] [--kept 3000000]

A claim, a message's way from its commit to its arrival, `/metrics` and `/outbox`, beside streams that wait for later
and a week of delivered messages, in turns with the same on an empty database.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import requests
import structlog
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.database import Database
from app.database.postgres_connection import PATIENT
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.claiming import Claiming
from app.outbox.decide import Action, Transition
from app.outbox.messages import Attempt, Claim, Classification, Verdict
from app.outbox.queue import OutboxQueue
from app.outbox.transitions import apply_transitions
from benchmarks.places import places
from benchmarks.receiver import receiver
from tests.system.promise import photo
from tests.system.service import Service, token

ENDPOINT = "http://annotations.test"
_NUMBERS = {
    True: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :media) ",
    False: "WITH n AS (SELECT generate_series(1, :media) AS i) ",
}
_ID = {True: "printf('%016x', i + :first)", False: "lpad(to_hex(i + :first), 16, '0')"}

_MEDIA = """
INSERT INTO media (id, name, path, media_type, media_status, user_id, size_bytes, created_at)
{numbers} SELECT {id}, 'photo.jpg', '/srv/images/' || {id} || '.jpg', 'Image', 2, :user, 1, 1.8e9 FROM n
"""
_STREAMS = """
INSERT INTO outbox_stream
    (media_id, user_id, last_seq, acked_seq, due_at, lease_epoch, attempts, failures, counted_attempts, outcome_unknown,
     waiting_since)
{numbers} SELECT {id}, :user, :history + 1, :history, 1.7e9 + i * 0.001, 0, 0, 0, 0, {false}, 1.7e9 FROM n
"""
_MESSAGES = """
INSERT INTO outbox_message
    (media_id, seq, kind, payload, idempotency_key, user_id, created_at, delivered_at, outcome)
{numbers} SELECT {id}, :seq, 'status', {payload}, {id} || :seq, :user, 1.7e9,
    {delivered}, {outcome} FROM n
"""


_WEEK = 7 * 86400
_WAITING_STREAMS = """
INSERT INTO outbox_stream
    (media_id, user_id, last_seq, acked_seq, due_at, lease_epoch, attempts, failures, counted_attempts, outcome_unknown,
     waiting_since)
{numbers} SELECT {id}, :user, 1, 0, {now} + 3600 + i * 0.001, 3, 3, 3, 0, {false}, {now} - 3600 FROM n
"""
_ENDED_STREAMS = """
INSERT INTO outbox_stream
    (media_id, user_id, last_seq, acked_seq, lease_epoch, attempts, failures, counted_attempts, outcome_unknown)
{numbers} SELECT {id}, :user, 3, 3, 3, 0, 0, 0, {false} FROM n
"""


def fill(database: Database, *, media: int, history: int, user: str = "ada", first: int = 0) -> None:
    """Add `media` media of `user`, numbered from `first` on, each with `history` delivered messages and one that waits,
    overdue."""
    sqlite = database.is_sqlite
    words = {"numbers": _NUMBERS[sqlite], "id": _ID[sqlite], "false": "0" if sqlite else "false"}
    payload = "'{\"mediaStatus\": 2}'" + ("" if sqlite else "::json")
    with database.writer.connect() as connection:
        whose = {"media": media, "user": user, "first": first}
        connection.execute(text(_MEDIA.format(**words)), whose)
        connection.execute(text(_STREAMS.format(**words)), whose | {"history": history})
        for seq in range(1, history + 2):
            past = seq <= history
            statement = _MESSAGES.format(
                **words,
                payload=payload,
                delivered="1.7e9" if past else "NULL",
                outcome="'accepted'" if past else "NULL",
            ).replace(":seq", str(seq))
            connection.execute(text(statement), whose)
        connection.commit()
    _analyze(database)


def fill_beside(database: Database, *, waiting: int, kept: int) -> None:
    """Add so many media that wait for an hour from now on, and three delivered messages each of so many others as make
    `kept` messages, delivered one after the other within the last week."""
    sqlite = database.is_sqlite
    now = "((julianday('now') - 2440587.5) * 86400.0)" if sqlite else "extract(epoch from now())"
    waits, ended = (_ID[sqlite].replace(":first", str(offset)) for offset in (200_000_000, 100_000_000))
    payload = "'{\"mediaStatus\": 2}'" + ("" if sqlite else "::json")
    words = {"numbers": _NUMBERS[sqlite], "false": "0" if sqlite else "false", "now": now, "payload": payload}
    media = max(1, kept // 3)
    with database.writer.connect() as connection:
        for identifier, count, streams in ((waits, waiting, _WAITING_STREAMS), (ended, media, _ENDED_STREAMS)):
            whose = {"media": count, "user": "ada", "first": 0}
            connection.execute(text(_MEDIA.format(id=identifier, **words)), whose)
            connection.execute(text(streams.format(id=identifier, **words)), whose)
        messages = _MESSAGES.format(id=waits, delivered="NULL", outcome="NULL", **words)
        connection.execute(text(messages.replace(":seq", "1")), {"media": waiting, "user": "ada", "first": 0})
        for seq in (1, 2, 3):
            delivered = f"{now} - {_WEEK} * (1 - i * 1.0 / {media})"
            messages = _MESSAGES.format(id=ended, delivered=delivered, outcome="'accepted'", **words)
            connection.execute(text(messages.replace(":seq", str(seq))), {"media": media, "user": "ada", "first": 0})
        connection.commit()
    _analyze(database)


def _analyze(database: Database) -> None:
    with database.writer.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()


def claim_and_acknowledge(database: Database, *, holds_any: bool = False) -> list[Claim]:
    """Claim up to eight messages and record them as delivered, each in a transaction; returns the claims."""
    queue = OutboxQueue(database.now)
    claiming = Claiming(queue, CircuitBreaker(ENDPOINT, database.now), "benchmark", 30)
    with database.write_transaction() as session:
        claims = claiming.claim(session, Circuit(), 8, now=time.time(), holds_any=holds_any)
    attempt = Attempt(Classification(Verdict.DELIVERED, "", 200), time.time(), 0.001)
    with database.write_transaction() as session:
        for claim in claims:
            apply_transitions(session, queue, [Transition(Action.DELIVERED, claim, attempt)], 30)
    return claims


def _claims(database: Database, name: str) -> float:
    """Seconds for a claim of one message and its acknowledgement, of one that has just been added."""
    with database.write_transaction() as session:
        moment = (
            "julianday('now') * 86400.0 - 2440587.5 * 86400.0" if database.is_sqlite else "extract(epoch from now())"
        )
        words = {"numbers": "", "id": f"'{name}'", "now": moment, "false": "0" if database.is_sqlite else "false"}
        payload = "'{}'" + ("" if database.is_sqlite else "::json")
        for statement in (_MEDIA, _STREAMS.replace(":history", "0").replace("i * 0.001", "0"), _MESSAGES):
            one = statement.format(payload=payload, delivered="NULL", outcome="NULL", **words).replace(" FROM n", "")
            session.execute(text(one.replace(":seq", "1")), {"user": "ada"})
    began = time.perf_counter()
    claims = claim_and_acknowledge(database)
    assert [claim.message.media_id for claim in claims] == [name]
    return time.perf_counter() - began


@contextmanager
def _serving(folder: Path, url: str) -> Iterator[tuple[Service, Callable[[], float]]]:
    """The service on a database, and what waits for the arrival of the next message over there."""
    with receiver(quiet=False) as (annotations, receiving):
        service = Service(folder, url, annotations)
        out = receiving.stdout
        assert out is not None
        try:
            yield service.start(), lambda: float(out.readline().split()[-1])
        finally:
            service.stop()
            service.kill()


def _asked(service: Service, path: str) -> float:
    began = time.perf_counter()
    headers = {"Authorization": f"Bearer {token(roles=['admin'])}"}
    assert requests.get(service.url + path, headers=headers, timeout=60).ok
    return time.perf_counter() - began


def _arrival(service: Service, arrived: Callable[[], float], number: int) -> float:
    began = time.time()
    assert service.upload("/media", photo(number), name="photo.png").ok
    return arrived() - began


def measure(kind: str, waiting: int, kept: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """What takes how long, in seconds, on an empty database and beside all that."""
    with ExitStack() as stack:
        at = stack.enter_context(places())
        databases = [stack.enter_context(closing(Database(at.url(kind), limits=PATIENT))) for _ in range(2)]
        fill_beside(databases[1], waiting=waiting, kept=kept)
        claims = [[_claims(database, f"c{number:015x}") for number in range(rounds)] for database in databases]
        yield "claim and acknowledgement", statistics.median(claims[0]), statistics.median(claims[1])
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in databases]
        urls = [database.url.render_as_string(hide_password=False) for database in databases]
        served = [stack.enter_context(_serving(*where)) for where in zip(folders, urls, strict=True)]
        work: dict[str, Callable[[int, int], float]] = {
            "an upload's arrival over there, p50": lambda which, number: _arrival(*served[which], number),
            "GET /metrics": lambda which, _number: _asked(served[which][0], "/metrics"),
            "GET /outbox": lambda which, _number: _asked(served[which][0], "/outbox"),
        }
        for name, once in work.items():
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(rounds):
                for which in (0, 1):
                    times[which].append(once(which, number))
            yield name, statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Measure both databases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=400_000, help="streams that wait for later")
    parser.add_argument("--kept", type=int, default=3_000_000, help="delivered messages")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    table = Table("what", "database", "beside nothing", "beside all that", "ratio (at most 1.5)")
    for kind in ("sqlite", "postgresql") if options.only is None else (options.only,):
        for name, empty, full in measure(kind, options.waiting, options.kept, options.rounds):
            table.add_row(name, kind, f"{empty * 1000:.2f} ms", f"{full * 1000:.2f} ms", f"{full / empty:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
