"""Counters of deliveries and runs, stored in the database so that they are exact across processes and restarts.

A counter is added to in the transaction that records what it counts. Nothing here begins or commits a transaction.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import isinf

from sqlalchemy import JSON, Executable, bindparam, func, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import CounterShard

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86400.0, float("inf"))
"""Upper bounds, in seconds, of the time from a message's commit to its acknowledgement."""

RUN_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, float("inf"))
"""Upper bounds, in seconds, of the time from a run's last start to its end."""

ATTEMPTS, LATENCY, LATENCY_SUM, LEASES_LOST = "attempts", "latency", "latency_sum", "leases_lost"
FRAMES, RUN_SECONDS, RUN_SECONDS_SUM, RUN_LEASES_LOST = "frames", "run_seconds", "run_seconds_sum", "run_leases_lost"
_SEPARATOR = ":"

_ADD_TO_SHARD = sqlite.insert(CounterShard).values(name=bindparam("name"), shard=0, value=bindparam("value"))
_ADD: dict[str, Executable] = {
    "sqlite": _ADD_TO_SHARD.on_conflict_do_update(
        index_elements=[CounterShard.name, CounterShard.shard],
        set_={"value": CounterShard.value + _ADD_TO_SHARD.excluded.value},
    ).returning(CounterShard.name),  # with RETURNING, many rows are one statement
    # A counter has several rows, its shards. A transaction adds to a shard that no other transaction has locked, or
    # inserts a new one, so writers never wait for each other.
    "postgresql": text(
        """
        WITH given AS (SELECT name, value FROM json_to_recordset(:increments) AS given(name text, value float)),
        free AS (
            SELECT given.name, given.value, row.shard
            FROM given CROSS JOIN LATERAL (
                SELECT shard FROM counter_shard WHERE counter_shard.name = given.name
                ORDER BY shard LIMIT 1 FOR UPDATE SKIP LOCKED
            ) AS row
        ),
        counted AS (
            UPDATE counter_shard SET value = counter_shard.value + free.value FROM free
            WHERE counter_shard.name = free.name AND counter_shard.shard = free.shard
        )
        INSERT INTO counter_shard (name, shard, value)
        SELECT name, floor(random() * 1e18)::bigint, value FROM given WHERE name NOT IN (SELECT name FROM free)
        """
    ).bindparams(bindparam("increments", type_=JSON())),
}


def of_attempts(attempts: Iterable[tuple[str, str]]) -> Counter[str]:
    """Return the counter increments of attempts, given as (message kind, verdict)."""
    return Counter(_SEPARATOR.join((ATTEMPTS, kind, verdict)) for kind, verdict in attempts)


def of_latencies(seconds: Iterable[float]) -> Mapping[str, float]:
    """Return the increments of the latency histogram."""
    return in_buckets((LATENCY,), (LATENCY_SUM,), LATENCY_BUCKETS, seconds)


def of_frames(frames: int) -> Mapping[str, float]:
    """Return the increment of the number of processed frames."""
    return {FRAMES: float(frames)} if frames else {}


def of_ended_run(state: str, seconds: float) -> Mapping[str, float]:
    """Return the increments of one run that ended in `state`, `seconds` after its last start."""
    return in_buckets((RUN_SECONDS, state), (RUN_SECONDS_SUM, state), RUN_BUCKETS, [seconds])


def in_buckets(
    name: Sequence[str], sum_name: Sequence[str], bounds: Sequence[float], seconds: Iterable[float]
) -> Mapping[str, float]:
    """Return the increments of a histogram: each time in the bucket of its upper bound, and the sum of all times."""
    increments: dict[str, float] = {}
    for one in seconds:
        bucket = _SEPARATOR.join((*name, str(bounds[bisect_left(bounds, one)])))
        for key, amount in ((bucket, 1.0), (_SEPARATOR.join(sum_name), max(0.0, one))):
            increments[key] = increments.get(key, 0.0) + amount
    return increments


def cumulative(
    increments: Mapping[tuple[str, ...], float], name: Sequence[str], bounds: Sequence[float]
) -> list[tuple[str, float]]:
    """Return (upper bound, count of all times up to it) for each bucket, as Prometheus expects."""
    counts = accumulate(increments.get((*name, str(bound)), 0.0) for bound in bounds)
    return [("+Inf" if isinf(bound) else str(bound), count) for bound, count in zip(bounds, counts, strict=True)]


def add(session: WriteTransaction, increments: Mapping[str, float]) -> None:
    """Add to counters by name, in the caller's transaction; new counters start at 0."""
    if not increments:
        return
    rows = [{"name": name, "value": value} for name, value in increments.items()]
    dialect = session.core.dialect.name
    session.core.execute(_ADD[dialect], rows if dialect == "sqlite" else {"increments": rows})


def read(session: Session) -> dict[tuple[str, ...], float]:
    """Return every counter's value by the parts of its name."""
    rows = session.execute(select(CounterShard.name, func.sum(CounterShard.value)).group_by(CounterShard.name))
    return {tuple(name.split(_SEPARATOR)): float(value) for name, value in rows}
