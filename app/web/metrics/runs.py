"""Metrics of detection runs, read from the database when scraped, for all processes."""

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
    """Yields metrics of runs as seen by one session: current ones by counting rows, ended ones from counters."""

    def __init__(self, session: Session, now: ColumnElement[float]) -> None:
        self._session = session
        self._now = now

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("detections_run_queue", "Runs waiting or under way.", labels=("state",))
        counted = media_items.runs_under_way(self._session)
        for state in (RunState.QUEUED, RunState.RUNNING):
            queue.add_metric([state], counted.get(state, 0))
        yield queue
        age = media_items.oldest_run_age(self._session, self._now)
        yield GaugeMetricFamily("detections_run_oldest_age_seconds", "Age of the oldest waiting run.", age)
        yield from _blocked(blocked_runs.counts(self._session))
        values = counters.read(self._session)
        frames = values.get((counters.FRAMES,), 0.0)
        yield CounterMetricFamily("detections_frames", "Frames processed by the detector.", frames)
        lost = values.get((counters.RUN_LEASES_LOST,), 0.0)
        yield CounterMetricFamily("detections_run_leases_lost", "Runs that another process took over.", lost)
        yield from _ended(values)


def _blocked(counts: dict[FaultKind, int]) -> Iterator[Metric]:
    faults = GaugeMetricFamily("detections_house_faults", "Blocked runs by reason.", labels=("kind",))
    for kind, count in counts.items():
        if kind != FaultKind.MISSING:
            faults.add_metric([kind], count)
    yield faults
    missing = counts[FaultKind.MISSING]
    yield GaugeMetricFamily("detections_missing_files", "Runs that wait for a missing stored file.", missing)


def _ended(values: dict[tuple[str, ...], float]) -> Iterator[Metric]:
    runs = CounterMetricFamily("detections_runs", "Ended runs by state.", labels=("state",))
    seconds = HistogramMetricFamily("detections_run_seconds", "Duration of runs by final state.", labels=("state",))
    for state in (RunState.DONE, RunState.FAILED):
        buckets = counters.cumulative(values, (counters.RUN_SECONDS, state), counters.RUN_BUCKETS)
        runs.add_metric([state], buckets[-1][1])
        seconds.add_metric([state], buckets, values.get((counters.RUN_SECONDS_SUM, state), 0.0))
    yield runs
    yield seconds
