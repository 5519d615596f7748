"""Upkeep of resumable uploads: the expired are removed, and those whose client left at the last byte are finished."""

from contextlib import ExitStack, nullcontext, suppress

import structlog

from app.database.models import ResumableUpload
from app.errors import DetectionsError, UploadLocked
from app.process.background import BackgroundWork
from app.resumable.records import UploadRecords
from app.resumable.uploads import ResumableUploads
from app.resumable.writers import open_locked

log = structlog.get_logger()

AT_ONCE = 100
"""How many uploads one round looks at."""

EVERY_SECONDS = 60.0


class UploadUpkeep(BackgroundWork):
    """Does both at the start and every minute; any number of processes may."""

    def __init__(self, records: UploadRecords, uploads: ResumableUploads, every: float = EVERY_SECONDS) -> None:
        super().__init__("resumable uploads", pause=every)
        self._records = records
        self._uploads = uploads

    def work(self) -> None:
        """One round."""
        self.finish_left_behind()
        self.expire()

    def expire(self) -> int:
        """Forget uploads whose time has passed, and remove their files; returns how many. What is being written now is
        left for the next time."""
        return sum(self._expire(upload) for upload in self._records.expired(AT_ONCE))

    def finish_left_behind(self) -> int:
        """Finish uploads whose bytes are all there and whose client does not come back for the answer; returns how many
        became media items."""
        finished = 0
        for upload in self._records.left_behind(AT_ONCE):
            try:
                finished += self._uploads.settle(upload.id, upload.user_id, nullcontext, None).state == "complete"
            except DetectionsError as error:  # told to the client, should it come
                log.info("upload_not_finished", upload=upload.id, reason=str(error))
        return finished

    def _expire(self, upload: ResumableUpload) -> bool:
        with ExitStack() as stack:
            incoming = None
            if upload.file is not None:
                with suppress(UploadLocked):  # its file is gone
                    incoming = open_locked(upload, wait=0)
                    if incoming is None:
                        return False
                    stack.enter_context(incoming).keep_name()
            forgotten = self._records.forget(upload, if_expired=True)
            if incoming is not None:
                incoming.keep_name(keep=not forgotten)
        if forgotten and upload.file is not None:
            log.info("upload_expired", upload=upload.id, received=upload.received, length=upload.length)
        return forgotten
