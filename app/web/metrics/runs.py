"""The figures of detection runs for Prometheus, read from the database at scrape time: right across processes."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.database import counters
from app.database.models import RunState
from app.queries import media_items
from app.runs import blocked_runs
from app.runs.house_faults import FaultKind


class RunCollector(Collector):
    """Yields what one session sees of the runs: those that wait or are under way by count, all others by counters."""

    def __init__(self, session: Session, now: ColumnElement[float]) -> None:
        self._session = session
        self._now = now

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("detections_run_queue", "Runs that wait or are under way.", labels=("state",))
        counted = media_items.runs_under_way(self._session)
        for state in (RunState.QUEUED, RunState.RUNNING):
            queue.add_metric([state], counted.get(state, 0))
        yield queue
        age = media_items.oldest_run_age(self._session, self._now)
        yield GaugeMetricFamily("detections_run_oldest_age_seconds", "How long the oldest run has waited.", age)
        yield from _blocked(blocked_runs.counts(self._session))
        figures = counters.read(self._session)
        frames = figures.get((counters.FRAMES,), 0.0)
        yield CounterMetricFamily("detections_frames", "Frames that the detector looked at.", frames)
        lost = figures.get((counters.RUN_LEASES_LOST,), 0.0)
        yield CounterMetricFamily("detections_run_leases_lost", "Runs that went to another process meanwhile.", lost)
        yield from _ended(figures)


def _blocked(counts: dict[FaultKind, int]) -> Iterator[Metric]:
    faults = GaugeMetricFamily("detections_house_faults", "Runs that wait, by what keeps them.", labels=("kind",))
    for kind, count in counts.items():
        if kind != FaultKind.MISSING:
            faults.add_metric([kind], count)
    yield faults
    missing = counts[FaultKind.MISSING]
    yield GaugeMetricFamily("detections_missing_files", "Runs that wait for a stored file that is missing.", missing)


def _ended(figures: dict[tuple[str, ...], float]) -> Iterator[Metric]:
    runs = CounterMetricFamily("detections_runs", "Runs that have ended, by how.", labels=("state",))
    seconds = HistogramMetricFamily("detections_run_seconds", "How long runs took, by their end.", labels=("state",))
    for state in (RunState.DONE, RunState.FAILED):
        buckets = counters.cumulative(figures, (counters.RUN_SECONDS, state), counters.RUN_BUCKETS)
        runs.add_metric([state], buckets[-1][1])
        seconds.add_metric([state], buckets, figures.get((counters.RUN_SECONDS_SUM, state), 0.0))
    yield runs
    yield seconds
