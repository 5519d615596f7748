"""Metrics of the outbox and of resumable uploads, read from the database when scraped, for all processes."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.database import counters
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.counts import OutboxCounts, outbox_status
from app.resumable import rows as upload_rows

PREFIX = "detections_outbox"


class UploadCollector(Collector):
    """Yields the number of unfinished resumable uploads and their missing bytes."""

    def __init__(self, session: Session, now: ColumnElement[float]) -> None:
        self._session = session
        self._now = now

    def collect(self) -> Iterator[Metric]:
        count, missing = upload_rows.unfinished(self._session, self._now)
        yield GaugeMetricFamily("detections_unfinished_uploads", "Unfinished resumable uploads.", count)
        yield GaugeMetricFamily(
            "detections_unfinished_upload_bytes",
            "Declared bytes not yet received.",
            missing,
        )


class OutboxCollector(Collector):
    """Yields the outbox's state as seen by one session."""

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
        yield from _counter_metrics(counters.read(self._session))

    def _state(self) -> Iterator[Metric]:
        status = outbox_status(self._session, self._now, self._counts)
        circuit = self._breaker.fetch(self._session).endpoint.circuit if self._breaker else Circuit()
        held = self._breaker.held_users(self._session) if self._breaker else []
        for name, text, value in (
            ("pending_messages", "Messages waiting to be delivered.", status.pending),
            ("active_streams", "Media items with messages waiting to be delivered.", status.active),
            ("parked_media", "Media items whose messages wait for a person.", status.parked),
            ("oldest_age_seconds", "Age of the oldest waiting message.", status.oldest_age or 0),
            ("delivered_last_hour", "Messages delivered within the last hour.", status.delivered_last_hour),
            ("circuit_open", "1 while the circuit breaker is open or half-open.", int(not circuit.is_closed)),
            ("held_users", "Users whose messages are held because the annotations service refused them.", len(held)),
            ("held_messages", "Waiting messages of held users.", sum(user.waiting for user in held)),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, float(value))


def _counter_metrics(values: dict[tuple[str, ...], float]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(f"{PREFIX}_attempts", "Attempts to deliver a message.", labels=("kind", "verdict"))
    for name, value in values.items():
        if name[0] == counters.ATTEMPTS:
            attempts.add_metric(name[1:], value)
    yield attempts
    lost = values.get((counters.LEASES_LOST,), 0.0)
    yield CounterMetricFamily(f"{PREFIX}_leases_lost", "Results that arrived after their lease was lost.", lost)
    yield HistogramMetricFamily(
        f"{PREFIX}_delivery_seconds",
        "From a message's commit to its acknowledgement.",
        buckets=counters.cumulative(values, (counters.LATENCY,), counters.LATENCY_BUCKETS),
        sum_value=values.get((counters.LATENCY_SUM,), 0.0),
    )
