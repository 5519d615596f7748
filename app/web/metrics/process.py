"""Metrics of the server processes: requests, uploads, bytes, slots.

If gunicorn.conf.py names a folder, each process writes its metrics into files there, and the process that is scraped
adds them up, so that every process returns the same. `app.web.metrics.outbox` has what the database knows.
"""

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path

from flask import Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from app.current import EXTENSION as SERVICES
from app.detection.sandbox.policy import Sandbox
from app.process.log_target import TARGET

EXTENSION = "detections-process-metrics"
UPLOADS = ("detect.detect_upload", "media.store")
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, float("inf"))

COUNTED_BYTES = 16 << 20
"""Bytes of an upload between two updates of the counter; counting each chunk is expensive."""


class ProcessMetrics:
    """The metrics of one application. Create it in the serving process, after the fork."""

    def __init__(self, shared: Path | None) -> None:
        self._shared = shared
        self._own = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "detections_request_seconds",
            "Time from a request's head to the start of its response, by route.",
            ("method", "route", "status"),
            buckets=REQUEST_BUCKETS,
            registry=self._own,
        )
        self._uploads = Counter(
            "detections_uploads", "Uploads by outcome; for errors, the problem's type.", ("outcome",),
            registry=self._own,
        )  # fmt: skip
        self._bytes = Counter("detections_upload_bytes", "Bytes of files received.", registry=self._own)
        self._lines_lost = Counter(
            "detections_log_lines_lost", "Log lines that could not be written.", registry=self._own
        )
        self._slots = Gauge(
            "detections_slots_taken",
            "Uploads, downloads, waiting requests and event streams under way.",
            multiprocess_mode="livesum",
            registry=self._own,
        )
        self._sandbox = Gauge(
            "detections_detector_sandbox",
            "1 if the sandbox restricts the files or the system calls of detectors.",
            ("part",),
            multiprocess_mode="livemin",
            registry=self._own,
        )

    def registry(self) -> CollectorRegistry:
        """Return the registry to expose: of all processes that share the folder, or of this one."""
        if self._shared is None:
            return self._own
        together = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(together, str(self._shared))  # type: ignore[no-untyped-call]
        return together

    def log_line_lost(self) -> None:
        """Count a log line that could not be written."""
        self._lines_lost.inc()

    def slots_taken(self, count: int) -> None:
        """Set the number of slots taken in this process."""
        self._slots.set(count)

    def detector_sandbox(self, sandbox: Sandbox) -> None:
        """Set the restrictions of this process's detectors."""
        self._sandbox.labels("files").set(sandbox.files)
        self._sandbox.labels("system_calls").set(sandbox.seccomp)

    def received(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield the chunks of a file and count them, at every COUNTED_BYTES and at the end."""
        uncounted = 0
        try:
            for chunk in chunks:
                uncounted += len(chunk)
                if uncounted >= COUNTED_BYTES:
                    self._bytes.inc(uncounted)
                    uncounted = 0
                yield chunk
        finally:
            self._bytes.inc(uncounted)

    def answered(self, response: Response) -> None:
        """Count the current request, which this response answers."""
        rule = request.url_rule
        # A client can invent any number of methods.
        method, route = (request.method, rule.rule) if rule else ("any", "none")
        self._requests.labels(method, route, f"{response.status_code // 100}xx").observe(time.monotonic() - g.began)
        if method == "POST" and rule and rule.endpoint in UPLOADS:
            self._uploads.labels(_outcome(response)).inc()
        elif "ended_upload" in g:
            self._uploads.labels(g.get("problem", g.ended_upload)).inc()


def install(app: Flask, shared: Path | None) -> None:
    """Count the application's requests and the slots of its services."""
    metrics = app.extensions[EXTENSION] = ProcessMetrics(shared)
    app.extensions[SERVICES].slots.on_change(metrics.slots_taken)
    TARGET.on_lost = metrics.log_line_lost
    metrics.detector_sandbox(app.extensions[SERVICES].detector_sandbox())

    @app.after_request
    def _count(response: Response) -> Response:
        metrics.answered(response)
        return response


def process_metrics() -> ProcessMetrics:
    """Return the current application's metrics."""
    metrics: ProcessMetrics = current_app.extensions[EXTENSION]
    return metrics


def _outcome(response: Response) -> str:
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        return str(g.get("problem", "unknown"))
    if response.status_code == HTTPStatus.ACCEPTED:
        return "duplicate" if (response.get_json() or {}).get("duplicate") else "stored"
    if response.status_code == HTTPStatus.CREATED:
        return "stored"
    return "duplicate" if "Location" in response.headers else "in-memory"
