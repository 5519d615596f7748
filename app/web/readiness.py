"""Readiness for uploads, checked within a bounded time.

A hanging database or disk would block each caller. Each check therefore runs in a thread, at most one at a time;
callers share its result and wait for a limited time.
"""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.database import ReadTransaction, schema
from app.database.schema import is_read_only
from app.errors import DatabaseFailed, DatabaseUnfit, DetectionsError
from app.process.single_flight import SingleFlight
from app.runs import blocked_runs
from app.services import Services
from app.storage import INCOMING, Storage

TIMEOUT_SECONDS = 1.5
NEARLY_FULL_BYTES = 256 << 20
FOLDERS_SILENT = "the folders do not answer"

Check = Callable[[], list[str]]
"""Returns the reasons why the service is not ready."""


class Readiness:
    """The readiness of one process's services."""

    def __init__(self, services: Services) -> None:
        checks: tuple[tuple[Check, str | None], ...] = (
            (partial(_database_reasons, services), "the database does not answer"),
            (partial(_folder_reasons, services), FOLDERS_SILENT),
            # A probe waits for the disk's syncs, which are slow under load; its last result is then sufficient.
            (partial(_probe_reasons, services.storage), None),
        )
        self._checks = [_TimedCheck(check, timeout_reason) for check, timeout_reason in checks]

    def reasons(self, timeout: float = TIMEOUT_SECONDS) -> list[str]:
        """Return every reason why the service is not ready, within `timeout` seconds; empty if it is ready."""
        deadline = time.monotonic() + timeout
        started = [(check, check.call.begin()) for check in self._checks]
        return [reason for check, future in started for reason in check.result(future, deadline - time.monotonic())]


class _TimedCheck:
    """Runs a check in a thread. `timeout_reason` is its result if it takes too long; None for its previous result."""

    def __init__(self, check: Check, timeout_reason: str | None) -> None:
        self._check = check
        self._timeout_reason = timeout_reason
        self._last: list[str] = []
        self.call = SingleFlight(self._run, "readiness")

    def result(self, future: "Future[list[str]]", seconds: float) -> list[str]:
        try:
            return future.result(max(0.0, seconds))
        except TimeoutError:
            return self._last if self._timeout_reason is None else [self._timeout_reason]

    def _run(self) -> list[str]:
        self._last = self._check()
        return self._last


def _database_reasons(services: Services) -> list[str]:
    try:
        reason, all_blocked_reason = services.queries.fetch(_database_state)
    except (DatabaseUnfit, DatabaseFailed) as error:
        return [str(error)]
    except (SQLAlchemyError, DetectionsError) as error:
        return [f"the database does not answer: {type(error).__name__}"]
    if reason:
        return [reason]
    fault = services.executor.breaker.fault
    waits = str(fault) if fault else all_blocked_reason
    return [*_write_reasons(services), *([f"detection waits: {waits}"] if waits else [])]


def _database_state(session: ReadTransaction) -> tuple[str | None, str | None]:
    """Return what is wrong with the database, and what keeps every detection waiting."""
    reason = "the database is read-only" if is_read_only(session) else schema.mismatch(session)
    return reason, None if reason else session.scalar(select(blocked_runs.reason_for_all()))


def _write_reasons(services: Services) -> list[str]:
    try:
        services.database.check_writable()
    except (SQLAlchemyError, DetectionsError) as error:
        reason = str(error) if isinstance(error, DetectionsError) else type(error).__name__
        return [f"the database cannot be written: {reason}"]
    return []


def _folder_reasons(services: Services) -> list[str]:
    storage, database = services.storage, services.database
    reasons = []
    for folder in storage.folders:
        reason = storage.unusable_reason(folder)
        if reason:
            reasons.append(reason)
        elif not _is_writable(folder):
            reasons.append(f"the folder {folder.name} is not writable")
        else:
            reasons += _space_reasons(
                f"the folder {folder.name}", partial(storage.free_bytes, folder, NEARLY_FULL_BYTES)
            )
    if database.is_sqlite and database.url.database:
        folder = Path(database.url.database).parent
        reasons += _space_reasons("the database's folder", lambda: shutil.disk_usage(folder).free)
    return reasons


def _probe_reasons(storage: Storage) -> list[str]:
    reasons = []
    for folder in storage.folders:
        probe = storage.probe_folder(folder)
        if probe.missing:
            reasons.append(f"the folder {folder.name} cannot take uploads: {probe.missing}")
        elif probe.error and _is_writable(folder):
            reasons.append(f"the folder {folder.name} cannot store a file: {probe.error}")
    return reasons


def _is_writable(folder: Path) -> bool:
    return all(os.access(path, os.W_OK | os.X_OK) for path in (folder, folder / INCOMING))


def _space_reasons(name: str, free_bytes: Callable[[], int]) -> list[str]:
    try:
        free = free_bytes()
    except (OSError, DetectionsError) as error:
        return [f"{name} cannot be checked: {type(error).__name__}"]
    if free >= NEARLY_FULL_BYTES:
        return []
    return [f"{name} has {max(0, free) >> 20} MiB left, less than {NEARLY_FULL_BYTES >> 20} MiB"]
