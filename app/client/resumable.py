"""One file to the service in parts, by tus 1.0.0: after a break the upload goes on from the bytes that are there."""

from http import HTTPStatus

from app.client.exchange import ServiceRefused, ServiceSilent
from app.client.local_file import LocalFile
from app.client.options import UploadOptions
from app.client.progress import Progress
from app.client.service import GONE, RemoteService, Stored, UploadState
from app.client.unfinished import Remembered

_LEAVES_UPLOAD = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.INSUFFICIENT_STORAGE)
"""Refusals that a person can mend, after which the same upload goes on."""


class ResumableSender:
    """Sends one file, in as many attempts as it takes; the next one after a failure is the caller's to begin.

    `reached` is how many bytes the service is known to have; `resumed_at` is the offset from which the upload went on
    after the last break, in this run or before it, and None where there was none.
    """

    def __init__(
        self,
        service: RemoteService,
        file: LocalFile,
        options: UploadOptions,
        remembered: Remembered,
        *,
        part_bytes: int,
        progress: Progress,
    ) -> None:
        self._service = service
        self._file = file
        self._options = options
        self._remembered = remembered
        self._part_bytes = part_bytes
        self._progress = progress
        self.reached = 0
        self.resumed_at: int | None = None

    def send(self) -> Stored:
        """One attempt. Raises ServiceRefused, ServiceSilent or FileUnfit."""
        try:
            stored = self._send()
        except ServiceRefused as error:
            if not error.may_pass and error.status not in _LEAVES_UPLOAD:
                self._remembered.forget()
            if error.status in GONE:
                raise ServiceSilent("the upload is gone, and begins anew") from error
            raise
        self._remembered.forget()
        return stored

    def _send(self) -> Stored:
        upload_id, state = self._found() or self._created()
        while state.stored is None:
            reached = self._append(upload_id, state.offset)
            if reached < self._file.size:
                state = UploadState(reached, state.length, None)
                continue
            found = self._service.upload_state(upload_id)
            if found is None or found.stored is None:
                raise ServiceSilent("the service has all bytes, and has not said yet what became of them")
            state = found
        return state.stored

    def _found(self) -> tuple[str, UploadState] | None:
        """The upload that was begun before, if the service still has it."""
        upload_id = self._remembered.upload_id
        if upload_id is None:
            return None
        self._service.settle_upload(upload_id)
        state = self._service.upload_state(upload_id)
        if state is None or state.length != self._file.size:
            return None
        self.reached = self.resumed_at = state.offset
        self._progress.resumed(state.offset)
        return upload_id, state

    def _created(self) -> tuple[str, UploadState]:
        self.reached, self.resumed_at = 0, None
        self._progress.sent(0)
        upload_id = self._service.create_upload(self._file, self._options)
        self._remembered.remember(upload_id)
        return upload_id, UploadState(0, self._file.size, None)

    def _append(self, upload_id: str, offset: int) -> int:
        """Send the next part; how many bytes the service has then. One that says that it had more is believed."""
        self._file.check_unchanged()
        size = min(self._part_bytes, self._file.size - offset)
        try:
            self.reached = self._service.append(upload_id, self._file, offset, size, self._progress.sent)
        except ServiceRefused as error:
            if error.offset is None or not offset < error.offset <= self._file.size:
                raise
            self.reached = self.resumed_at = error.offset
            self._progress.resumed(error.offset)
        return self.reached
