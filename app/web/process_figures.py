"""Figures of this process and of the server processes beside it: requests, uploads, bytes, slots.

Where gunicorn.conf.py has named a folder for it, each process writes its own figures into files there, and whoever is
asked adds them up, so that every process tells the same. What the database knows is not here: see `app.web.figures`.
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
from app.log_target import TARGET

EXTENSION = "detections-figures"
UPLOADS = ("detect.detect_upload", "media.store")
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, float("inf"))

COUNTED_BYTES = 16 << 20
"""How often a long upload's bytes are counted: at each piece it was nearly half of what Python does with a raw body."""


class ProcessFigures:
    """The figures of one application. To be made in the process that serves, once it has forked."""

    def __init__(self, shared: Path | None) -> None:
        self._shared = shared
        self._own = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "detections_request_seconds",
            "From a request's head to the beginning of its answer, by route.",
            ("method", "route", "status"),
            buckets=REQUEST_BUCKETS,
            registry=self._own,
        )
        self._uploads = Counter(
            "detections_uploads", "Uploads, by how they ended: the problem's type where refused.", ("outcome",),
            registry=self._own,
        )  # fmt: skip
        self._bytes = Counter("detections_upload_bytes", "Bytes of files received.", registry=self._own)
        self._lines_lost = Counter(
            "detections_log_lines_lost", "Log lines that could not be written.", registry=self._own
        )
        self._slots = Gauge(
            "detections_slots_taken",
            "Uploads, downloads, waiting answers and event streams under way.",
            multiprocess_mode="livesum",
            registry=self._own,
        )
        self._sandbox = Gauge(
            "detections_detector_sandbox",
            "1 where detectors are kept from files but their own, and from system calls that they do not need.",
            ("part",),
            multiprocess_mode="livemin",
            registry=self._own,
        )

    def registry(self) -> CollectorRegistry:
        """What to expose: the figures of every process that shares the folder, or this one's."""
        if self._shared is None:
            return self._own
        together = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(together, str(self._shared))  # type: ignore[no-untyped-call]
        return together

    def log_line_lost(self) -> None:
        """A log line could not be written."""
        self._lines_lost.inc()

    def slots_taken(self, count: int) -> None:
        """So many slots of this process are taken now."""
        self._slots.set(count)

    def detector_sandbox(self, sandbox: Sandbox) -> None:
        """The detectors of this process are under so much."""
        self._sandbox.labels("files").set(sandbox.files)
        self._sandbox.labels("system_calls").set(sandbox.seccomp)

    def received(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """The chunks of a file as they come, counted at every COUNTED_BYTES and at the end."""
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
        """Count the request at hand, which this answers."""
        rule = request.url_rule
        # A client may make up methods without end.
        method, route = (request.method, rule.rule) if rule else ("any", "none")
        self._requests.labels(method, route, f"{response.status_code // 100}xx").observe(time.monotonic() - g.began)
        if method == "POST" and rule and rule.endpoint in UPLOADS:
            self._uploads.labels(_outcome(response)).inc()
        elif "ended_upload" in g:
            self._uploads.labels(g.get("problem", g.ended_upload)).inc()


def install(app: Flask, shared: Path | None) -> None:
    """Count every request of the application, and the slots that its services give out."""
    figures = app.extensions[EXTENSION] = ProcessFigures(shared)
    app.extensions[SERVICES].slots.on_change(figures.slots_taken)
    TARGET.on_lost = figures.log_line_lost
    figures.detector_sandbox(app.extensions[SERVICES].detector_sandbox())

    @app.after_request
    def _count(response: Response) -> Response:
        figures.answered(response)
        return response


def process_figures() -> ProcessFigures:
    """The figures of the application at hand."""
    found: ProcessFigures = current_app.extensions[EXTENSION]
    return found


def _outcome(response: Response) -> str:
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        return str(g.get("problem", "unknown"))
    if response.status_code == HTTPStatus.ACCEPTED:
        return "duplicate" if (response.get_json() or {}).get("duplicate") else "stored"
    if response.status_code == HTTPStatus.CREATED:
        return "stored"
    return "duplicate" if "Location" in response.headers else "in-memory"
