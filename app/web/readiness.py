"""Whether the service is fit for uploads, told within a bounded time.

A database or a disk that hangs would keep whoever looks at it, and supervisors go on asking. So each is looked at in a
thread of its own, of which there is one at most: whoever asks meanwhile waits for the same look, and not for long.
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

PATIENCE_SECONDS = 1.5
NEARLY_FULL_BYTES = 256 << 20
FOLDERS_SILENT = "the folders do not answer"

Look = Callable[[], list[str]]
"""Returns what is wrong."""


class Readiness:
    """Of one process's services."""

    def __init__(self, services: Services) -> None:
        looks: tuple[tuple[Look, str | None], ...] = (
            (partial(_database_troubles, services), "the database does not answer"),
            (partial(_folder_troubles, services), FOLDERS_SILENT),
            # A trial waits for the disk's syncs, which take long under load: what was found last is good enough then.
            (partial(_trial_troubles, services.storage), None),
        )
        self._looks = [_PatientLook(look, silence) for look, silence in looks]

    def troubles(self, patience: float = PATIENCE_SECONDS) -> list[str]:
        """Every reason why it is not ready, after at most so many seconds; none where it is."""
        deadline = time.monotonic() + patience
        begun = [(one, one.call.begin()) for one in self._looks]
        return [trouble for one, look in begun for trouble in one.outcome(look, deadline - time.monotonic())]


class _PatientLook:
    """Looks in a thread; `silence` is what is wrong where nothing comes of it in time, None if that says nothing."""

    def __init__(self, look: Look, silence: str | None) -> None:
        self._look = look
        self._silence = silence
        self._found: list[str] = []
        self.call = SingleFlight(self._remember, "readiness")

    def outcome(self, look: "Future[list[str]]", seconds: float) -> list[str]:
        try:
            return look.result(max(0.0, seconds))
        except TimeoutError:
            return self._found if self._silence is None else [self._silence]

    def _remember(self) -> list[str]:
        self._found = self._look()
        return self._found


def _database_troubles(services: Services) -> list[str]:
    try:
        trouble, all_wait_for = services.queries.fetch(_fitness)
    except (DatabaseUnfit, DatabaseFailed) as error:
        return [str(error)]
    except (SQLAlchemyError, DetectionsError) as error:
        return [f"the database does not answer: {type(error).__name__}"]
    if trouble:
        return [trouble]
    fault = services.executor.breaker.fault
    waits = str(fault) if fault else all_wait_for
    return [*_writing_troubles(services), *([f"detection waits: {waits}"] if waits else [])]


def _fitness(session: ReadTransaction) -> tuple[str | None, str | None]:
    """What is wrong with the database, and what keeps all detection."""
    trouble = "the database is read-only: a standby, or set so" if is_read_only(session) else schema.mismatch(session)
    return trouble, None if trouble else session.scalar(select(blocked_runs.reason_for_all()))


def _writing_troubles(services: Services) -> list[str]:
    try:
        services.database.check_writable()
    except (SQLAlchemyError, DetectionsError) as error:
        reason = str(error) if isinstance(error, DetectionsError) else type(error).__name__
        return [f"the database cannot be written: {reason}"]
    return []


def _folder_troubles(services: Services) -> list[str]:
    storage, database = services.storage, services.database
    troubles = []
    for folder in storage.folders:
        reason = storage.unusable_reason(folder)
        if reason:
            troubles.append(reason)
        elif not _is_writable(folder):
            troubles.append(f"the folder {folder.name} is not writable")
        else:
            troubles += _room_trouble(f"the folder {folder.name}", partial(storage.room, folder, NEARLY_FULL_BYTES))
    if database.is_sqlite and database.url.database:
        folder = Path(database.url.database).parent
        troubles += _room_trouble("the database's folder", lambda: shutil.disk_usage(folder).free)
    return troubles


def _trial_troubles(storage: Storage) -> list[str]:
    troubles = []
    for folder in storage.folders:
        outcome = storage.try_folder(folder)
        if outcome.missing:
            troubles.append(f"the folder {folder.name} cannot take uploads: {outcome.missing}")
        elif outcome.refused and _is_writable(folder):
            troubles.append(f"the folder {folder.name} does not take a file: {outcome.refused}")
    return troubles


def _is_writable(folder: Path) -> bool:
    return all(os.access(path, os.W_OK | os.X_OK) for path in (folder, folder / INCOMING))


def _room_trouble(name: str, room: Callable[[], int]) -> list[str]:
    try:
        left = room()
    except (OSError, DetectionsError) as error:
        return [f"{name} cannot be looked at: {type(error).__name__}"]
    if left >= NEARLY_FULL_BYTES:
        return []
    return [f"{name} has {max(0, left) >> 20} MiB left, less than {NEARLY_FULL_BYTES >> 20} MiB"]
