"""What a resumable upload becomes once its bytes are there: the same ingest and run as of every other upload."""

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

_REFUSALS = (
    AlreadyProcessing,
    MalformedUpload,
    MediaIdCollision,
    MediaTooLarge,
    Undecodable,
    UnsupportedMedia,
)
"""Errors after which the same bytes would only be refused again."""


def refusal_of(upload: ResumableUpload) -> DetectionsError:
    """The error that a failed upload was refused with."""
    kind: type[DetectionsError] = next((kind for kind in _REFUSALS if kind.__name__ == upload.error), MalformedUpload)
    error = kind(upload.error_detail or "")
    if upload.media_id is not None:
        error.media_id = upload.media_id  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True, slots=True)
class RunDefaults:
    """What a run is asked for where the client leaves it open: a fraction, and seconds."""

    confidence: float
    frame_interval: float


class Finishing:
    """Hands files to the ingest and begins their runs. `speculative_run` makes the run of one upload."""

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
        self._uploaded_run = speculative_run
        self._defaults = defaults

    def finish(self, upload: ResumableUpload, incoming: Incoming, request_id: str | None) -> None:
        """Make the media item of an upload whose bytes are all there, or note why it is refused.

        Its row has ended afterwards and its temporary name goes, but after an error that may pass (Unavailable,
        StorageFull, StorageFailed). Raises what `Ingest.run` raises.
        """
        incoming.keep_name(keep=False)  # unless a commit of unknown outcome needs it as a proof
        try:
            result = self._take_in(upload, incoming, request_id)
            if result.duplicate:
                self._records.complete_duplicate(upload, result.media.id)
        except _REFUSALS as error:
            self.refuse(upload, incoming, error)
            raise
        except BaseException:
            incoming.keep_name()
            raise
        upload.state, upload.file = "complete", None
        upload.media_id, upload.duplicate = result.media.id, result.duplicate

    def refuse(self, upload: ResumableUpload, incoming: Incoming, error: DetectionsError) -> None:
        """Note why an upload is refused; its file goes."""
        incoming.keep_name()
        self._records.fail(upload, error)
        incoming.keep_name(keep=False)

    def _take_in(self, upload: ResumableUpload, incoming: Incoming, request_id: str | None) -> IngestResult:
        metadata = file_metadata(upload.upload_metadata)
        if not incoming.size:
            raise MalformedUpload("the file is empty")
        check_first_bytes(extension_of(metadata.name), incoming.head(HEAD_BYTES))
        received = Received(metadata.name, upload.user_id, incoming, request_id)

        def complete(transaction: WriteTransaction, media: Media) -> None:
            self._records.complete(transaction, upload, media.id)

        if not metadata.detect:
            return self._ingest.run_received(received, complete)
        return self._take_in_and_run(upload, received, metadata, complete)

    def _take_in_and_run(
        self,
        upload: ResumableUpload,
        received: Received,
        metadata: FileMetadata,
        complete: Callable[[WriteTransaction, Media], None],
    ) -> IngestResult:
        wanted = RunRequest(
            user_id=received.user_id,
            confidence=self._defaults.confidence if metadata.confidence is None else metadata.confidence,
            frame_interval=(
                self._defaults.frame_interval if metadata.frame_interval is None else metadata.frame_interval
            ),
            request_id=received.request_id,
        )
        with self._uploaded_run(wanted) as run:

            def complete_and_run(transaction: WriteTransaction, media: Media) -> None:
                run.record(transaction, media)
                complete(transaction, media)

            result = self._ingest.run_received(received, complete_and_run, on_received=run.begin)
            if not result.duplicate:
                run.recorded()
            elif metadata.rerun:

                def complete_duplicate(transaction: WriteTransaction) -> None:
                    self._records.complete(transaction, upload, result.media.id, duplicate=True)

                # In one transaction: whoever finishes the upload again would begin a second run.
                self._runs.start_new(result.media.id, wanted, complete_duplicate)
            else:
                self._runs.find_or_start(result.media.id, wanted)
        return result
