"""Who may write a resumable upload: one request at a time, of any process.

Whoever writes the file holds its lock, so no two processes write it at once as long as locks hold. A request that finds
the lock taken asks the holder to stop, who looks for that every second, also while its client is silent: a client whose
link died comes back before anybody else has noticed.
This module begins transactions.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.db import Database
from app.errors import StorageFailed, Unavailable, UploadGone, UploadLocked, UploadNotFound, UploadTakenOver
from app.models import ResumableUpload
from app.resumable import rows
from app.resumable.checksum_states import ChecksumStates
from app.resumable.finishing import refusal_of
from app.resumable.limits import Limits
from app.storage import Incoming

Slot = Callable[[], AbstractContextManager[None]]
"""Holds one of the process's slots; raises Unavailable where there is none."""


@dataclass(frozen=True, slots=True)
class Writing:
    """An upload whose lock is held, with its file; None where it has ended. `number` is this request's among those that
    asked a writer to stop."""

    upload: ResumableUpload
    incoming: Incoming | None
    number: int


class Writers:
    """The locks of resumable uploads. Safe to use from several threads and processes."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self.states = ChecksumStates()

    def find(self, upload_id: str, user_id: str) -> ResumableUpload:
        """The upload, as its row says, whoever is writing it. Raises UploadNotFound, UploadGone."""
        with self._database.reading() as session:
            upload = rows.fetch(session, upload_id, user_id)
            if upload is None:
                raise UploadNotFound(f"You have no upload {upload_id[:80]!r}; it may have ended more than an hour ago.")
            if rows.is_expired(session, self._database.now, upload):
                raise UploadGone(f"Upload {upload_id} has expired.")
        return upload

    @contextmanager
    def writing(self, upload_id: str, user_id: str, slot: Slot, *, tells_refusal: bool = True) -> Iterator[Writing]:
        """Hold the lock of an upload that is still to be written, whose file is cut back to what the row says.

        Raises UploadLocked where another request does not let go of it; and, unless told otherwise, what an upload was
        refused for.
        """
        number = None
        upload = self.find(upload_id, user_id)
        if upload.file is not None:
            incoming = open_locked(upload, wait=0)
            if incoming is None:
                number = self.ask_to_stop(upload_id, user_id)
                with slot():
                    incoming = open_locked(upload, wait=self._limits.takeover)
            if incoming is None:
                raise UploadLocked(f"Another request is still writing upload {upload_id}; try again.")
            with incoming:
                incoming.keep_name()
                upload = self.find(upload_id, user_id)  # anew: whoever held the lock has gone on with it
                if number is not None and upload.takeovers > number:
                    raise UploadTakenOver(f"Another request for upload {upload_id} has come meanwhile.")
                if upload.file is not None:
                    incoming.go_on_from(upload.received, self.states.take(upload.id, upload.received))
                    yield Writing(upload, incoming, upload.takeovers if number is None else number)
                    return
        if tells_refusal and upload.error is not None:
            raise refusal_of(upload)
        yield Writing(upload, None, 0)

    def ask_to_stop(self, upload_id: str, user_id: str) -> int:
        """Ask whoever writes the upload to stop; returns the number of this request."""
        self.find(upload_id, user_id)
        with self._database.writing() as session:
            return rows.ask_to_stop(session, upload_id)

    def check_turn(self, writing: Writing) -> None:
        """Raise UploadTakenOver where another request has asked to go on; a database that is busy asks nothing."""
        try:
            with self._database.reading() as session:
                asked = rows.takeovers(session, writing.upload.id)
        except Unavailable:
            return
        if asked is None or asked > writing.number:
            raise UploadTakenOver(f"Another request for upload {writing.upload.id} has come meanwhile.")


def open_locked(upload: ResumableUpload, *, wait: float) -> Incoming | None:
    """The file of an unfinished upload, locked; None where others keep the lock.

    Raises UploadLocked where it is gone: the upload has just ended or got another name, or somebody removed it.
    """
    try:
        return Incoming.open_again(Path(upload.file or ""), wait=wait)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UploadLocked(f"The file of upload {upload.id} has just changed its name, or is gone.") from error
        raise
