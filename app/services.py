"""The object graph of a process, created from the settings for the web, the commands and the tests."""

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.annotations import AnnotationsClient
from app.annotations.tokens import MintedTokens, StaticToken, TokenSource
from app.database import Database, Queries, Topic, history
from app.database.clock_guard import ClockGuard
from app.database.schema_watch import SchemaWatch
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.detection.limits import MediaLimits
from app.detection.sandbox.policy import Sandbox, available
from app.errors import DetectionsError
from app.ingest import Ingest
from app.ingest.adoption import Adoption
from app.media.signed_links import MediaLinks
from app.outbox import serializers
from app.outbox.admin import OutboxAdmin
from app.outbox.auditor import RemoteAuditor
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.counts import OutboxCounts, outbox_status
from app.outbox.dispatcher import Dispatcher, DispatcherLimits
from app.outbox.flush import Flush
from app.outbox.queue import OutboxQueue
from app.outbox.schedule import OUTBOX_BOUNDS
from app.outbox.watch import ChangeWatcher
from app.process.background import Background, Periodic
from app.process.processors import pin_to
from app.process.slots import ConcurrencyLimiter
from app.resumable.finishing import Finishing, RunDefaults
from app.resumable.limits import Limits
from app.resumable.maintenance import UploadMaintenance
from app.resumable.records import UploadRecords
from app.resumable.uploads import ResumableUploads
from app.runs.blocked_runs import BlockedRuns
from app.runs.claims import RUN_BOUNDS
from app.runs.detector_process import DetectorProcess
from app.runs.executor import RunExecutor
from app.runs.lifecycle import RunRequest, Runs
from app.runs.retention import RETENTION_EVERY, SupersededRuns
from app.runs.speculative_run import SpeculativeRun
from app.runs.waiters import RunWaiters
from app.settings import DatabaseSettings, Settings
from app.storage import Storage
from app.storage.folder_ownership import FolderOwnership
from app.storage.marker_writer import MarkerWriter
from app.storage.sweep import SWEEP_SECONDS, Sweep
from app.storage.verification import Verification

log = structlog.get_logger()

DEFAULT_THREADS = 16
DEADLINE_MARGIN = 2.0
"""Seconds by which a request to the annotations service may exceed its deadline before its lease ends."""


def open_database(settings: DatabaseSettings, *, now: ColumnElement[float] | None = None) -> Database:
    """Return the database of the settings; to be called after fork. `now` replaces its clock, for tests."""
    return Database(settings.url, now=now, pooler=settings.pooler, listen_url=settings.listen_url)


class Services:
    """The services of one process, created after fork. `start` begins the background work, `stop` ends it.

    `now` replaces the database's clock, an SQL expression, for tests.
    """

    def __init__(self, settings: Settings, *, now: ColumnElement[float] | None = None) -> None:
        self.settings = settings
        self.database = open_database(settings.database, now=now)
        self.queries = Queries(self.database)
        self.queue = OutboxQueue(self.database.now)
        self.outbox_admin = OutboxAdmin(self.database)
        self.counts = OutboxCounts(self.database)
        self.folders = FolderOwnership(self.database, settings.media_folders)
        self.storage = Storage(settings.media_folders, self.folders.unusable_reason)
        self.slots = ConcurrencyLimiter(DEFAULT_THREADS)
        self.ingest = Ingest(self.database, self.queue, self.storage)
        self.links = MediaLinks(self.database)
        self.sweep = Sweep(self.database, self.queue, self.storage)
        self.waiters = RunWaiters(self.database)
        self.schema = SchemaWatch(self.database)
        model = settings.detector_model or BUILT_IN_MODEL
        self.runs = Runs(
            self.database,
            self.queue,
            detector_name(model, settings.detector_options),
            max_waiting=settings.max_waiting_runs,
        )
        self.executor = RunExecutor(
            self.runs,
            partial(
                DetectorProcess,
                model,
                MediaLimits(picture_pixels=settings.max_picture_pixels),
                options=settings.detector_options,
            ),
            workers=settings.detection_workers,
            on_released=self.waiters.notify,
            max_boxes=settings.max_boxes_per_run,
            folder_reason=self.folders.unusable_reason,
        )
        self.database.subscribe(Topic.RUNS, self.executor.wake)
        self.upload_records = UploadRecords(self.database, settings.upload_expiry)
        self.resumable = ResumableUploads(
            self.upload_records,
            self.storage,
            Finishing(
                self.upload_records,
                self.ingest,
                self.runs,
                self.speculative_run,
                RunDefaults(settings.detector_confidence, settings.frame_interval),
            ),
            Limits(
                max_bytes=settings.max_upload_bytes,
                per_user=settings.unfinished_uploads_per_user,
            ),
        )
        self.annotations = _annotations_client(settings)
        fetch = self.annotations.fetch_for_adoption if self.annotations else None
        self.adoption = Adoption(self.database, self.storage, fetch)
        url = settings.annotations.url
        self.breaker = CircuitBreaker(url, self.database.now) if url else None
        self.is_serving: Callable[[], bool] = lambda: True
        """Whether the process serves requests; once it returns False, long requests end by themselves."""
        self._background: list[Background] = []

    def detector_sandbox(self) -> Sandbox:
        """Return the sandbox that the detectors reported; before one was started, what the kernel supports."""
        return self.executor.sandbox or available(self.settings.detector_options)

    def speculative_run(self, wanted: RunRequest) -> SpeculativeRun:
        """Return the speculative run of one upload."""
        return SpeculativeRun(self.runs, wanted, owner=self.executor.owner, give=self.executor.begin_speculative)

    def dispatcher(self) -> Dispatcher | None:
        """Return a new dispatcher; None if no annotations service is configured."""
        if self.annotations is None or self.breaker is None:
            return None
        limits = DispatcherLimits(
            workers=self.settings.delivery_workers,
            deadline=self.settings.delivery_deadline + DEADLINE_MARGIN,
        )
        return Dispatcher(self.database, self.queue, self.breaker, self.annotations.deliver, limits=limits)

    def flush(
        self, media_id: str | None = None, on_progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Flush:
        """Return a flush of all pending messages, or of one media item's."""
        return Flush(self.database, self.breaker, self.dispatcher(), media_id=media_id, on_progress=on_progress)

    def outbox_status(self, session: Session, counts: OutboxCounts | None = None) -> dict[str, Any]:
        """Return the serialized state of the outbox: counts, circuit, held users and the database's epoch.

        With `counts` the cost does not depend on the backlog.
        """
        found = outbox_status(session, self.database.now, counts)
        circuit = self.breaker.fetch(session).endpoint.circuit if self.breaker else Circuit()
        held = self.breaker.held_users(session) if self.breaker else []
        return serializers.status(found, circuit, held) | serializers.database(history.get(session))

    def auditor(self) -> RemoteAuditor | None:
        """Return an auditor of the annotations service's records; None if no annotations service is configured."""
        return RemoteAuditor(self.database, self.annotations.fetch_record) if self.annotations else None

    def verification(self) -> Verification:
        """Return a verification of the stored files."""
        return Verification(self.database, self.storage)

    def start(self, threads: int = DEFAULT_THREADS, processes: int = 1, processor: int | None = None) -> None:
        """Start detection, delivery and upkeep in threads of this process.

        The server has `processes` processes with `threads` threads each. The threads of this one are pinned to
        `processor`, unless WORKER_PROCESSORS is "all".
        """
        if processor is not None and self.settings.worker_processors == "one":
            pin_to(processor)
        self.slots.set_threads(threads)
        try:
            self.folders.open()
        except DetectionsError as error:  # /readyz reports it until the folders are usable
            log.error("media_folders_not_open", reason=str(error))
        if self.settings.detection == "embedded":
            self.executor.share(processes)
            self.executor.start()
            self._background.append(self.blocked_runs_release())
        superseded = SupersededRuns(self.database, self.settings.outbox_retention_days)
        self._background += [
            self.schema,
            self.upload_upkeep(),
            Periodic("sweep", lambda _is_stopping: self.sweep.run(), every=SWEEP_SECONDS),
            Periodic("retention", superseded.drop, every=RETENTION_EVERY),
        ]
        if self.settings.dispatcher == "embedded":
            self._background += self.delivery()
        self._background += self.upkeep()
        for part in self._background:
            part.start()

    def detection(self) -> "tuple[ChangeWatcher, BlockedRuns, RunExecutor]":
        """Return the watcher for runs of other processes, the release of blocked runs and the executor, not started."""
        return ChangeWatcher(self.database, self.executor.wake), self.blocked_runs_release(), self.executor

    def blocked_runs_release(self) -> BlockedRuns:
        """Return the background work that releases blocked runs, not started."""
        return BlockedRuns(self.database, self.executor.breaker, self.folders.unusable_reason)

    def delivery(self) -> list[Background]:
        """Return a dispatcher and the watcher that wakes it, not started; empty without an annotations service."""
        dispatcher = self.dispatcher()
        if dispatcher is None:
            return []
        self.database.subscribe(Topic.MESSAGES, dispatcher.wake)
        return [ChangeWatcher(self.database, dispatcher.wake), dispatcher]

    def upload_upkeep(self) -> UploadMaintenance:
        """Return the background work that expires and finishes resumable uploads, not started."""
        return UploadMaintenance(self.upload_records, self.resumable)

    def upkeep(self) -> list[Background]:
        """Return the background work of every process that uses the database, not started; to be stopped last."""
        guard = ClockGuard(self.database, [*OUTBOX_BOUNDS, *RUN_BOUNDS])
        return [guard, MarkerWriter(self.database, self.folders)]

    def stop(self) -> None:
        """Stop the background work and close every connection."""
        self.executor.stop()
        for part in self._background:
            part.stop()
        self._background.clear()
        self.close()

    def close(self) -> None:
        """Close every connection."""
        if self.annotations is not None:
            self.annotations.close()
        self.database.close()


def _annotations_client(settings: Settings) -> AnnotationsClient | None:
    annotations = settings.annotations
    if annotations.url is None:
        return None
    return AnnotationsClient(annotations.url, token_source(settings), deadline_seconds=settings.delivery_deadline)


def token_source(settings: Settings) -> TokenSource:
    """Return the source of tokens for the annotations service."""
    tokens, annotations = settings.tokens, settings.annotations
    if annotations.token is not None or tokens.secret is None:
        return StaticToken(annotations.token or "")
    return MintedTokens(
        tokens.secret, tokens.algorithm, tokens.identity_claim, annotations.audience, annotations.issuer
    )
