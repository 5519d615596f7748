"""Who may write a resumable upload: one request at a time, of any process.

Whoever writes the file holds its lock, so no two processes write it at once as long as locks hold. A request that finds
the lock taken asks the holder to stop, who looks for that every second, also while its client is silent: a client whose
link died comes back before anybody else has noticed.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.database.models import ResumableUpload
from app.errors import StorageFailed, Unavailable, UploadLocked, UploadTakenOver
from app.resumable.checksum_states import ChecksumStates
from app.resumable.finishing import refusal_of
from app.resumable.limits import Limits
from app.resumable.records import UploadRecords
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

    def __init__(self, records: UploadRecords, limits: Limits) -> None:
        self._records = records
        self._limits = limits
        self.states = ChecksumStates()

    @contextmanager
    def lock(self, upload_id: str, user_id: str, slot: Slot, *, tells_refusal: bool = True) -> Iterator[Writing]:
        """Hold the lock of an upload that is still to be written, whose file is cut back to what the row says.

        Raises UploadLocked where another request does not let go of it; and, unless told otherwise, what an upload was
        refused for.
        """
        number = None
        upload = self._records.find(upload_id, user_id)
        if upload.file is not None:
            incoming = open_locked(upload, wait=0)
            if incoming is None:
                number = self._records.ask_to_stop(upload_id)
                with slot():
                    incoming = open_locked(upload, wait=self._limits.takeover)
            if incoming is None:
                raise UploadLocked(f"Another request is still writing upload {upload_id}; try again.")
            with incoming:
                incoming.keep_name()
                upload = self._records.find(upload_id, user_id)  # anew: whoever held the lock has gone on with it
                if upload.file is not None:
                    incoming.truncate(upload.received, self.states.take(upload.id, upload.received))
                    yield Writing(upload, incoming, upload.takeovers if number is None else number)
                    return
        if tells_refusal and upload.error is not None:
            raise refusal_of(upload)
        yield Writing(upload, None, 0)

    def check_turn(self, writing: Writing) -> None:
        """Raise UploadTakenOver where another request has asked to go on; a database that is busy asks nothing."""
        try:
            asked = self._records.takeovers(writing.upload.id)
        except Unavailable:
            return
        if asked is None or asked > writing.number:
            raise taken_over(writing.upload)


def taken_over(upload: ResumableUpload) -> UploadTakenOver:
    """What a request is told that is no longer the newest for its upload."""
    return UploadTakenOver(f"Another request for upload {upload.id} has come meanwhile.")


def open_locked(upload: ResumableUpload, *, wait: float) -> Incoming | None:
    """The file of an unfinished upload, locked; None where others keep the lock.

    Raises UploadLocked where it is gone: the upload has just ended or got another name, or somebody removed it.
    """
    try:
        return Incoming.reopen(Path(upload.file or ""), wait=wait)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UploadLocked(f"The file of upload {upload.id} has just changed its name, or is gone.") from error
        raise
