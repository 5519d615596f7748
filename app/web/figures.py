"""Figures of the outbox and of resumable uploads for Prometheus, read from the database at scrape time: right across
processes."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.outbox import operations, tally
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.counts import OutboxCounts
from app.resumable import rows as upload_rows

PREFIX = "detections_outbox"


class UploadCollector(Collector):
    """Yields how many resumable uploads are unfinished, and what they still need."""

    def __init__(self, session: Session, now: ColumnElement[float]) -> None:
        self._session = session
        self._now = now

    def collect(self) -> Iterator[Metric]:
        count, missing = upload_rows.unfinished(self._session, self._now)
        yield GaugeMetricFamily("detections_unfinished_uploads", "Resumable uploads that go on.", count)
        yield GaugeMetricFamily(
            "detections_unfinished_upload_bytes", "Bytes that they have declared and not sent yet.", missing
        )


class OutboxCollector(Collector):
    """Yields the outbox's state as one session sees it."""

    def __init__(
        self,
        session: Session,
        now: ColumnElement[float],
        breaker: CircuitBreaker | None,
        counts: OutboxCounts | None = None,
    ) -> None:
        self._session = session
        self._counts = counts
        self._now = now
        self._breaker = breaker

    def collect(self) -> Iterator[Metric]:
        yield from self._state()
        yield from _grown(tally.read(self._session))

    def _state(self) -> Iterator[Metric]:
        status = operations.status(self._session, self._now, self._counts)
        circuit = self._breaker.fetch(self._session).endpoint.circuit if self._breaker else Circuit()
        held = self._breaker.held_users(self._session) if self._breaker else []
        for name, text, value in (
            ("pending_messages", "Messages waiting to be delivered.", status.pending),
            ("active_streams", "Media with messages waiting to be delivered.", status.active),
            ("parked_media", "Media whose messages wait for a person.", status.parked),
            ("oldest_age_seconds", "How long the longest waiting message has waited.", status.oldest_age or 0),
            ("delivered_last_hour", "Messages delivered within the last hour.", status.delivered_last_hour),
            ("circuit_open", "1 while the circuit breaker is open or half-open.", int(not circuit.is_closed)),
            ("held_users", "Users of whom nothing is sent for a while, because they were refused.", len(held)),
            ("held_messages", "Messages of held users that wait.", sum(one.waiting for one in held)),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, float(value))


def _grown(figures: dict[tuple[str, ...], float]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(f"{PREFIX}_attempts", "Attempts to deliver a message.", labels=("kind", "verdict"))
    for name, value in figures.items():
        if name[0] == tally.ATTEMPTS:
            attempts.add_metric(name[1:], value)
    yield attempts
    lost = figures.get((tally.LEASES_LOST,), 0.0)
    yield CounterMetricFamily(f"{PREFIX}_leases_lost", "Outcomes that came after their lease had gone.", lost)
    yield HistogramMetricFamily(
        f"{PREFIX}_delivery_seconds",
        "From a message's commit to its acknowledgement.",
        buckets=tally.cumulative(figures, (tally.LATENCY,), tally.LATENCY_BUCKETS),
        sum_value=figures.get((tally.LATENCY_SUM,), 0.0),
    )
