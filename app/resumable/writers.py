"""Serializes the writers of a resumable upload: one request at a time, in any process.

A writer holds the lock of the upload's file. A request that finds it locked asks the holder to stop; the holder checks
for that every second, also while its client sends nothing, because a client with a broken connection often returns
before the server notices.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.database.models import ResumableUpload
from app.errors import StorageFailed, Unavailable, UploadLocked, UploadTakenOver
from app.resumable.checksum_states import ChecksumStates
from app.resumable.finishing import stored_error
from app.resumable.limits import Limits
from app.resumable.records import UploadRecords
from app.storage import Incoming

Slot = Callable[[], AbstractContextManager[None]]
"""Holds one of the process's slots for long requests. Raises Unavailable if none is free."""


@dataclass(frozen=True, slots=True)
class Writing:
    """A locked upload with its file; `incoming` is None if it has ended.

    `number` is this request's number among those that asked a writer to stop.
    """

    upload: ResumableUpload
    incoming: Incoming | None
    number: int


class Writers:
    """The locks of resumable uploads. Safe to use from several threads and processes."""

    def __init__(self, records: UploadRecords, limits: Limits) -> None:
        self._records = records
        self._limits = limits
        self.states = ChecksumStates()

    @contextmanager
    def lock(self, upload_id: str, user_id: str, slot: Slot, *, raise_stored_error: bool = True) -> Iterator[Writing]:
        """Lock an upload, and truncate its file to the bytes that the row counts.

        Raises UploadLocked if another request does not release it. With `raise_stored_error`, raises the error that the
        upload ended with.
        """
        number = None
        upload = self._records.find(upload_id, user_id)
        if upload.file is not None:
            incoming = open_locked(upload, wait=0)
            if incoming is None:
                number = self._records.request_takeover(upload_id)
                with slot():
                    incoming = open_locked(upload, wait=self._limits.takeover)
            if incoming is None:
                raise UploadLocked(f"Another request is still writing upload {upload_id}; try again.")
            with incoming:
                incoming.keep_name()
                upload = self._records.find(upload_id, user_id)  # again, because the previous holder changed it
                if upload.file is not None:
                    incoming.truncate(upload.received, self.states.take(upload.id, upload.received))
                    yield Writing(upload, incoming, upload.takeovers if number is None else number)
                    return
        if raise_stored_error and upload.error is not None:
            raise stored_error(upload)
        yield Writing(upload, None, 0)

    def check_not_taken_over(self, writing: Writing) -> None:
        """Raise UploadTakenOver if a newer request asked for the upload. A busy database counts as no request."""
        try:
            takeovers = self._records.takeovers(writing.upload.id)
        except Unavailable:
            return
        if takeovers is None or takeovers > writing.number:
            raise taken_over(writing.upload)


def taken_over(upload: ResumableUpload) -> UploadTakenOver:
    """Return the error for a request that was replaced by a newer one."""
    return UploadTakenOver(f"A newer request took over upload {upload.id}.")


def open_locked(upload: ResumableUpload, *, wait: float) -> Incoming | None:
    """Open and lock the file of an unfinished upload; None if others keep the lock.

    Raises UploadLocked if the file is gone: the upload has just ended, its file was renamed, or somebody removed it.
    """
    try:
        return Incoming.reopen(Path(upload.file or ""), wait=wait)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UploadLocked(f"The file of upload {upload.id} was just renamed or is gone.") from error
        raise
