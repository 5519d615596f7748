"""Finishes a complete resumable upload with the same ingest and detection run as any other upload."""

from collections.abc import Callable
from dataclasses import dataclass

from app.database import WriteTransaction
from app.database.models import Media, ResumableUpload
from app.errors import (
    AlreadyProcessing,
    DetectionsError,
    MalformedUpload,
    MediaIdCollision,
    MediaTooLarge,
    Undecodable,
    UnsupportedMedia,
)
from app.ingest import Ingest, IngestResult, Received
from app.media.types import HEAD_BYTES, check_first_bytes, extension_of
from app.resumable.metadata import FileMetadata, file_metadata
from app.resumable.records import UploadRecords
from app.runs.lifecycle import RunRequest, Runs
from app.runs.speculative_run import SpeculativeRun
from app.storage import Incoming

_FINAL_ERRORS = (
    AlreadyProcessing,
    MalformedUpload,
    MediaIdCollision,
    MediaTooLarge,
    Undecodable,
    UnsupportedMedia,
)
"""Errors that the same bytes would meet again."""


def stored_error(upload: ResumableUpload) -> DetectionsError:
    """Return the error that a failed upload ended with."""
    by_name: dict[str, type[DetectionsError]] = {kind.__name__: kind for kind in _FINAL_ERRORS}
    error = by_name.get(upload.error or "", MalformedUpload)(upload.error_detail or "")
    if upload.media_id is not None:
        error.media_id = upload.media_id  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True, slots=True)
class RunDefaults:
    """Values for a run that the client does not choose: confidence 0..1, and frame interval in seconds."""

    confidence: float
    frame_interval: float


class Finishing:
    """Passes files to the ingest and starts their runs. `speculative_run` creates the run of one upload."""

    def __init__(
        self,
        records: UploadRecords,
        ingest: Ingest,
        runs: Runs,
        speculative_run: Callable[[RunRequest], SpeculativeRun],
        defaults: RunDefaults,
    ) -> None:
        self._records = records
        self._ingest = ingest
        self._runs = runs
        self._speculative_run = speculative_run
        self._defaults = defaults

    def finish(self, upload: ResumableUpload, incoming: Incoming, request_id: str | None) -> None:
        """Record the media item of a complete upload, or record why it is refused.

        The upload has then ended and its temporary name is removed, except after a transient error (Unavailable,
        StorageFull, StorageFailed). Raises what `Ingest.run` raises.
        """
        incoming.keep_name(keep=False)  # a commit with unknown outcome keeps it as proof
        try:
            result = self._ingest_upload(upload, incoming, request_id)
            if result.duplicate:
                self._records.complete_duplicate(upload, result.media.id)
        except _FINAL_ERRORS as error:
            self.refuse(upload, incoming, error)
            raise
        except BaseException:
            incoming.keep_name()
            raise
        upload.state, upload.file = "complete", None
        upload.media_id, upload.duplicate = result.media.id, result.duplicate

    def refuse(self, upload: ResumableUpload, incoming: Incoming, error: DetectionsError) -> None:
        """Record why an upload is refused, and remove its file."""
        incoming.keep_name()
        self._records.fail(upload, error)
        incoming.keep_name(keep=False)

    def _ingest_upload(self, upload: ResumableUpload, incoming: Incoming, request_id: str | None) -> IngestResult:
        metadata = file_metadata(upload.upload_metadata)
        if not incoming.size:
            raise MalformedUpload("the file is empty")
        check_first_bytes(extension_of(metadata.name), incoming.head(HEAD_BYTES))
        received = Received(metadata.name, upload.user_id, incoming, request_id)

        def complete(transaction: WriteTransaction, media: Media) -> None:
            self._records.complete(transaction, upload, media.id)

        if not metadata.detect:
            return self._ingest.run_received(received, complete)
        return self._ingest_and_run(upload, received, metadata, complete)

    def _ingest_and_run(
        self,
        upload: ResumableUpload,
        received: Received,
        metadata: FileMetadata,
        complete: Callable[[WriteTransaction, Media], None],
    ) -> IngestResult:
        request = RunRequest(
            user_id=received.user_id,
            confidence=self._defaults.confidence if metadata.confidence is None else metadata.confidence,
            frame_interval=(
                self._defaults.frame_interval if metadata.frame_interval is None else metadata.frame_interval
            ),
            request_id=received.request_id,
        )
        with self._speculative_run(request) as run:

            def complete_and_run(transaction: WriteTransaction, media: Media) -> None:
                run.record(transaction, media)
                complete(transaction, media)

            result = self._ingest.run_received(received, complete_and_run, on_received=run.begin)
            if not result.duplicate:
                run.recorded()
            elif metadata.rerun:

                def complete_duplicate(transaction: WriteTransaction) -> None:
                    self._records.complete(transaction, upload, result.media.id, duplicate=True)

                # In one transaction: otherwise a process that finishes the upload again would start a second run.
                self._runs.start_new(result.media.id, request, complete_duplicate)
            else:
                self._runs.find_or_start(result.media.id, request)
        return result
