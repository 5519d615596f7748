"""Recording of published files: uploads that come at once share one sync of their folder and one commit.

SQLite lets in one writer at a time, and each commit waits for the disk. So whoever comes while a commit is under way
waits, and the first of those who wait then commits for all of them. Each returns only once its own row is durable, and
learns its own fate: where one cannot be recorded, the others of its group are recorded without it. PostgreSQL lets
commits in together and shares their syncs by itself, so there each upload commits alone.
This module begins transactions.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from app.database.engine import Database
from app.database.models import Media
from app.direct import Direct
from app.errors import DetectionsError, StorageFull, Unavailable
from app.lifecycle import NewMedia, create_all
from app.outbox.queue import OutboxQueue
from app.storage import sync_folder

AndThen = Callable[[Connection, Media], object]
"""Adds to the transaction that records a media."""


class CommitUnknown(Exception):
    """The commit failed in a way that does not tell whether it came true; its cause says how."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A media whose file is published under its final name, in `folder`: what is to be committed for it."""

    media: Media
    folder: Path
    request_id: str | None
    and_then: AndThen


class Recorder:
    """Commits recordings, for all threads of a process."""

    def __init__(self, database: Database, queue: OutboxQueue) -> None:
        self._database = database
        self._queue = queue
        self._clock = Direct(select(database.now))
        self._guard = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._is_led = False

    def record(self, recording: Recording) -> None:
        """Make the folder's names durable, then the rows; returns once both are. The media learns its `created_at`.

        Raises CommitUnknown where nobody can tell; after any other error nothing is recorded: IntegrityError where
        the id is taken, StorageFull, StorageFailed, Unavailable, and whatever the recording's `and_then` raises.
        """
        ticket = _Ticket(recording)
        try:
            if self._database.is_sqlite:
                self._record_with_others(ticket)
            else:
                self._record([ticket])
        except BaseException as error:  # a signal's: how far it came is not looked into
            raise CommitUnknown from error
        if ticket.error is not None:
            raise ticket.error

    def add(self, connection: Connection, recordings: Sequence[Recording]) -> None:
        """The rows of recordings, in the caller's transaction."""
        self._add(connection, recordings, self._now(connection))

    def _now(self, connection: Connection) -> float:
        (now,) = self._clock.first(connection, {}) or (0.0,)
        return float(now)

    def _add(self, connection: Connection, recordings: Sequence[Recording], now: float) -> None:
        for one in recordings:
            one.media.created_at = now
        create_all(connection, self._queue, [NewMedia(one.media, one.request_id) for one in recordings], now)
        for one in recordings:
            one.and_then(connection, one.media)

    def _record_with_others(self, ticket: "_Ticket") -> None:
        with self._guard:
            self._waiting.append(ticket)
            ticket.leads, self._is_led = not self._is_led, True
        if not ticket.leads:
            self._await(ticket)
        if ticket.leads:
            self._lead()

    def _lead(self) -> None:
        """Decide all who wait, and make the first of those who have come meanwhile the next to lead."""
        with self._guard:
            group, self._waiting = self._waiting, []
        try:
            self._record(group)
        finally:
            self._hand_on()
            for ticket in group:
                ticket.wake()

    def _await(self, ticket: "_Ticket") -> None:
        """Until it is decided, or is to lead."""
        try:
            ticket.wait()
        except BaseException:  # a signal's; while another is recording it, its file must stay locked
            if not self._leave(ticket):
                ticket.wait()
            raise

    def _leave(self, ticket: "_Ticket") -> bool:
        """Out of those who wait; False where another is recording it already."""
        with self._guard:
            if ticket not in self._waiting:
                return False
            self._waiting.remove(ticket)
        if ticket.leads:
            self._hand_on()
        return True

    def _hand_on(self) -> None:
        with self._guard:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].wake()

    def _record(self, group: "Sequence[_Ticket]") -> None:
        ready = _with_synced_folders(group)
        if not ready or self._commit(ready, waiting_since=min(ticket.since for ticket in ready)):
            return
        for number, ticket in enumerate(ready):
            self._commit([ticket])
            if isinstance(ticket.error, Unavailable):  # the database is: it would be for each of the others
                for other in ready[number + 1 :]:
                    other.fail(ticket.error)
                return

    def _commit(self, group: "Sequence[_Ticket]", waiting_since: float | None = None) -> bool:
        """All in one transaction. False if nothing is recorded for a reason that may be one's own: to be tried alone.

        An IntegrityError and a full disk say for sure that a commit did not happen.
        """
        begun = committing = False
        try:
            with self._database.recording(waiting_since=waiting_since) as connection:
                now = self._now(connection)
                begun = True
                self._add(connection, [ticket.recording for ticket in group], now)
                committing = True
        except Exception as error:  # noqa: BLE001 (each ticket raises it again)
            unknown = committing and not isinstance(error, IntegrityError | StorageFull)
            if begun and not unknown and len(group) > 1:
                return False
            for ticket in group:
                ticket.fail(error, unknown=unknown)
        else:
            for ticket in group:
                ticket.error = None
        return True


class _Ticket:
    """One who waits: woken when its fate is decided, and before that if it is to lead. `error` is None once recorded;
    until something is known, nobody can tell."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.since = time.monotonic()
        self.leads = False
        self.error: BaseException | None = None
        self.fail(Unavailable("The recording was interrupted; try again.", retry_after=5), unknown=True)
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        self._asleep.acquire()

    def wake(self) -> None:
        self._asleep.release()

    def fail(self, error: BaseException, *, unknown: bool = False) -> None:
        if unknown:
            self.error = CommitUnknown()
            self.error.__cause__ = error
        else:
            self.error = error


def _with_synced_folders(group: Sequence[_Ticket]) -> list[_Ticket]:
    """Those whose names are durable: one sync that begins after all of them were given covers them all."""
    synced: set[Path] = set()
    for folder in {ticket.recording.folder for ticket in group}:
        try:
            sync_folder(folder)
        except DetectionsError as error:
            for ticket in group:
                if ticket.recording.folder == folder:
                    ticket.fail(error)
        else:
            synced.add(folder)
    return [ticket for ticket in group if ticket.recording.folder in synced]
