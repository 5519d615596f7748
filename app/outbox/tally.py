"""Figures that only ever grow, kept beside the outbox so that they are right across processes and restarts.

They are counted in the transaction that records the outcomes they count. Nothing here begins or commits one.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.db import upsert
from app.models import OutboxTally
from app.outbox.queue import Try

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86400.0, float("inf"))
"""Upper bounds, in seconds, of the time from a message's commit to its acknowledgement."""

ATTEMPTS, LATENCY, LATENCY_SUM, LEASES_LOST = "attempts", "latency", "latency_sum", "leases_lost"
_SEPARATOR = ":"


def of_attempts(tries: Iterable[Try]) -> Counter[str]:
    """One for each try, by kind and verdict."""
    return Counter(_SEPARATOR.join((ATTEMPTS, tried.claim.message.kind, tried.answer.verdict)) for tried in tries)


def of_latencies(seconds: Iterable[float]) -> Mapping[str, float]:
    """Each latency in its bucket, and their sum."""
    figures: dict[str, float] = {}
    for latency in seconds:
        bucket = LATENCY_BUCKETS[bisect_left(LATENCY_BUCKETS, latency)]
        for name, amount in ((f"{LATENCY}{_SEPARATOR}{bucket}", 1.0), (LATENCY_SUM, max(0.0, latency))):
            figures[name] = figures.get(name, 0.0) + amount
    return figures


def count(session: Session, figures: Mapping[str, float]) -> None:
    """Add to the figures of these names, which begin at nothing."""
    if not figures:
        return
    new = upsert(session, OutboxTally)
    counted = new.values(name=bindparam("name"), value=bindparam("value")).on_conflict_do_update(
        index_elements=[OutboxTally.name], set_={"value": OutboxTally.value + new.excluded.value}
    )
    added = counted.returning(OutboxTally.name)  # with RETURNING, many rows are one statement
    # In the same order everywhere: two dispatchers that lock these rows must not wait for each other.
    session.connection().execute(added, [{"name": name, "value": figures[name]} for name in sorted(figures)])


def read(session: Session) -> dict[tuple[str, ...], float]:
    """Every figure, by the parts of its name."""
    rows = session.execute(select(OutboxTally.name, OutboxTally.value))
    return {tuple(row.name.split(_SEPARATOR)): row.value for row in rows}
