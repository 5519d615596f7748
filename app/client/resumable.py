"""Uploads one file in parts by tus 1.0.0, continuing after an interruption where the service stopped receiving."""

from http import HTTPStatus

from app.client.exchange import ServiceError, ServiceUnreachable
from app.client.local_file import LocalFile
from app.client.options import UploadOptions
from app.client.progress import Progress
from app.client.service import GONE, RemoteService, StoredMedia, UploadState
from app.client.unfinished import SavedUpload

_FIXABLE_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.INSUFFICIENT_STORAGE)
"""Errors that a person can fix, after which the same upload can continue."""


class ResumableSender:
    """Sends one file. Each call of `send` is one attempt; the caller decides on the next.

    `acknowledged` is the number of bytes that the service is known to have. `resumed_at` is the offset at which the
    upload continued after the last interruption, in this run or an earlier one; None if there was none.
    """

    def __init__(
        self,
        service: RemoteService,
        file: LocalFile,
        options: UploadOptions,
        saved: SavedUpload,
        *,
        part_bytes: int,
        progress: Progress,
    ) -> None:
        self._service = service
        self._file = file
        self._options = options
        self._saved = saved
        self._part_bytes = part_bytes
        self._progress = progress
        self.acknowledged = 0
        self.resumed_at: int | None = None

    def send(self) -> StoredMedia:
        """Make one attempt. Raises ServiceError, ServiceUnreachable or UnusableFile."""
        try:
            stored = self._send()
        except ServiceError as error:
            if not error.is_transient and error.status not in _FIXABLE_STATUSES:
                self._saved.delete()
            if error.status in GONE:
                raise ServiceUnreachable("the upload no longer exists and starts again") from error
            raise
        self._saved.delete()
        return stored

    def _send(self) -> StoredMedia:
        upload_id, state = self._continue() or self._create()
        while state.stored is None:
            acknowledged = self._append(upload_id, state.offset)
            if acknowledged < self._file.size:
                state = UploadState(acknowledged, state.length, None)
                continue
            latest = self._service.upload_state(upload_id)
            if latest is None or latest.stored is None:
                raise ServiceUnreachable("the service has all bytes but has not reported a result yet")
            state = latest
        return state.stored

    def _continue(self) -> tuple[str, UploadState] | None:
        """Return the upload that was started earlier, if the service still has it."""
        upload_id = self._saved.upload_id
        if upload_id is None:
            return None
        self._service.end_broken_request(upload_id)
        state = self._service.upload_state(upload_id)
        if state is None or state.length != self._file.size:
            return None
        self.acknowledged = self.resumed_at = state.offset
        self._progress.resumed(state.offset)
        return upload_id, state

    def _create(self) -> tuple[str, UploadState]:
        self.acknowledged, self.resumed_at = 0, None
        self._progress.sent(0)
        upload_id = self._service.create_upload(self._file, self._options)
        self._saved.save(upload_id)
        return upload_id, UploadState(0, self._file.size, None)

    def _append(self, upload_id: str, offset: int) -> int:
        """Send the next part and return how many bytes the service has. A larger offset in its error is accepted."""
        self._file.check_unchanged()
        size = min(self._part_bytes, self._file.size - offset)
        try:
            self.acknowledged = self._service.append(upload_id, self._file, offset, size, self._progress.sent)
        except ServiceError as error:
            if error.offset is None or not offset < error.offset <= self._file.size:
                raise
            self.acknowledged = self.resumed_at = error.offset
            self._progress.resumed(error.offset)
        return self.acknowledged
