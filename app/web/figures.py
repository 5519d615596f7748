"""The outbox's figures for Prometheus, read from the database at scrape time."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.outbox import operations
from app.outbox.gate import Gate


class OutboxCollector(Collector):
    """Yields the outbox's state as one session sees it."""

    def __init__(self, session: Session, now: ColumnElement[float], gate: Gate | None) -> None:
        self._session = session
        self._now = now
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        status = operations.status(self._session, self._now)
        gate_open = self._gate is None or self._gate.condition(self._session).is_open
        for name, text, value in (
            ("outbox_pending_messages", "Messages waiting to be delivered.", status.pending),
            ("outbox_parked_media", "Media whose messages wait for a person.", status.parked),
            ("outbox_oldest_age_seconds", "How long the longest waiting message has waited.", status.oldest_age or 0),
            ("outbox_delivered_last_hour", "Messages delivered within the last hour.", status.delivered_last_hour),
            ("outbox_gate_open", "1 while messages may pass to the annotations service.", int(gate_open)),
        ):
            yield GaugeMetricFamily(f"detections_{name}", text, float(value))
