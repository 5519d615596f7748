"""Maintenance of resumable uploads: removes expired ones and finishes complete ones whose client left."""

from contextlib import ExitStack, nullcontext, suppress

import structlog

from app.database.models import ResumableUpload
from app.errors import DetectionsError, UploadLocked
from app.process.background import BackgroundWork
from app.resumable.records import UploadRecords
from app.resumable.uploads import ResumableUploads
from app.resumable.writers import open_locked

log = structlog.get_logger()

BATCH = 100
"""How many uploads one round handles."""

INTERVAL_SECONDS = 60.0


class UploadMaintenance(BackgroundWork):
    """Runs at the start and every minute; several processes may run it at once."""

    def __init__(self, records: UploadRecords, uploads: ResumableUploads, every: float = INTERVAL_SECONDS) -> None:
        super().__init__("resumable uploads", pause=every)
        self._records = records
        self._uploads = uploads

    def work(self) -> None:
        """Run one round."""
        self.finish_abandoned()
        self.expire()

    def expire(self) -> int:
        """Delete expired uploads and their files, except those being written. Return their number."""
        return sum(self._expire(upload) for upload in self._records.expired(BATCH))

    def finish_abandoned(self) -> int:
        """Finish complete uploads whose client did not return. Return how many became media items."""
        finished = 0
        for upload in self._records.abandoned(BATCH):
            try:
                finished += (
                    self._uploads.finish_if_complete(upload.id, upload.user_id, nullcontext, None).state == "complete"
                )
            except DetectionsError as error:  # the client gets the same error if it returns
                log.info("upload_not_finished", upload=upload.id, reason=str(error))
        return finished

    def _expire(self, upload: ResumableUpload) -> bool:
        with ExitStack() as stack:
            incoming = None
            if upload.file is not None:
                with suppress(UploadLocked):  # the file is gone
                    incoming = open_locked(upload, wait=0)
                    if incoming is None:
                        return False
                    stack.enter_context(incoming).keep_name()
            deleted = self._records.delete(upload, if_expired=True)
            if incoming is not None:
                incoming.keep_name(keep=not deleted)
        if deleted and upload.file is not None:
            log.info("upload_expired", upload=upload.id, received=upload.received, length=upload.length)
        return deleted
