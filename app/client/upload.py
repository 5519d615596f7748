"""Uploads one file, with retries for transient failures.

Each attempt first asks whether the service has the file, so that an upload with a lost response is not repeated and a
list of files continues where it stopped. Content is compared by checksum, because equal ids do not mean equal content.
Large files are sent in parts and continue after the bytes that the service has.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from app.client.exchange import Document, ServiceError, ServiceUnreachable
from app.client.local_file import LocalFile, UnusableFile, open_local_file
from app.client.options import UploadOptions
from app.client.progress import Progress
from app.client.resumable import ResumableSender
from app.client.service import RemoteService, StoredMedia
from app.client.unfinished import UnfinishedUploads
from app.errors import DetectionsError, UnsupportedMedia

UploadOutcome = Literal["uploaded", "duplicate", "already there", "failed", "not attempted"]

MIB = 1 << 20
RESUMABLE_ABOVE = 8 * MIB
MAX_PART_BYTES = 64 * MIB
NO_ACCESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one file.

    `ends_list` means that every other file would fail for the same reason. `resumed_at` is the number of bytes that the
    service had when the upload last continued after an interruption; None if it did not.
    """

    path: Path
    outcome: UploadOutcome
    media_id: str | None = None
    status: int | None = None
    reason: str | None = None
    ends_list: bool = False
    resumed_at: int | None = None


class _Collision(DetectionsError):
    """The service has other content under this file's id."""


class _SingleRequestSender:
    """Sends one file in one request; each attempt starts at the first byte."""

    acknowledged = 0
    resumed_at = None

    def __init__(self, service: RemoteService, file: LocalFile, options: UploadOptions, progress: Progress) -> None:
        self._service = service
        self._file = file
        self._options = options
        self._progress = progress

    def send(self) -> StoredMedia:
        self._progress.sent(0)
        return self._service.send(self._file, self._options, self._progress.sent)


_Sender = _SingleRequestSender | ResumableSender


class Uploader:
    """Uploads files with at most `attempts` consecutive attempts without progress; `sleep` waits that many seconds.

    Files above 8 MiB or above `part_bytes` are sent in parts of at most `part_bytes`.
    """

    def __init__(
        self,
        service: RemoteService,
        options: UploadOptions,
        *,
        attempts: int,
        unfinished: UnfinishedUploads,
        part_bytes: int = MAX_PART_BYTES,
        backoff: wait_base = BACKOFF,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._options = options
        self._attempts = attempts
        self._unfinished = unfinished
        self._part_bytes = part_bytes
        self._backoff = backoff
        self._sleep = sleep

    def upload(self, path: Path, progress: Progress) -> Result:
        """Upload a file. Errors are part of the result."""
        media_id: str | None = None
        try:
            with open_local_file(path) as file, self._sender(file, progress) as sender:
                media_id = file.media_id
                outcome, record = self._retrying(sender, progress)(self._attempt, file, sender)
        except (UnsupportedMedia, UnusableFile, _Collision) as error:
            return Result(path, "failed", media_id, reason=str(error))
        except ServiceError as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=error.status in NO_ACCESS)
        except ServiceUnreachable as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=isinstance(error, _NoConnection))
        if record["id"] != media_id:
            return Result(path, "failed", media_id, reason=f"changed while it was sent; stored as {record['id']}")
        return Result(path, outcome, media_id, record["mediaStatus"], resumed_at=sender.resumed_at)

    @contextmanager
    def _sender(self, file: LocalFile, progress: Progress) -> Iterator[_Sender]:
        if file.size <= min(RESUMABLE_ABOVE, self._part_bytes):
            yield _SingleRequestSender(self._service, file, self._options, progress)
            return
        # Other options or another version of the file make it another upload.
        key = (self._service.url, file.media_id, file.modified_ns, self._options.metadata(file.name))
        with self._unfinished.open(*key) as saved:
            yield ResumableSender(
                self._service, file, self._options, saved, part_bytes=self._part_bytes, progress=progress
            )

    def _attempt(self, file: LocalFile, sender: _Sender) -> tuple[UploadOutcome, Document]:
        try:
            record = self._service.media(file.media_id)
        except ServiceUnreachable as error:
            raise _NoConnection(str(error)) from error
        if record is None or not _is_same(record, file):
            stored = sender.send()
            return "duplicate" if stored.duplicate else "uploaded", stored.record
        if self._options.rerun or (self._options.detect and record["run"] is None):
            record = self._detect(file.media_id)
        return "already there", record

    def _detect(self, media_id: str) -> Document:
        """Start a run on a stored media item; a run that somebody else started meanwhile also counts."""
        try:
            return self._service.detect(media_id, self._options)
        except ServiceError as error:
            record = self._service.media(media_id) if error.status == HTTPStatus.CONFLICT else None
            if record is None:
                raise
            return record

    def _retrying(self, sender: _Sender, progress: Progress) -> Retrying:
        acknowledged = 0

        def count(state: RetryCallState) -> None:
            """Reset the count of failures if bytes have arrived since: a link may break many times."""
            nonlocal acknowledged
            if sender.acknowledged > acknowledged:
                state.attempt_number = 1
            acknowledged = sender.acknowledged

        def report(state: RetryCallState) -> None:
            if state.outcome and state.next_action:
                progress.waits(str(state.outcome.exception()), state.next_action.sleep)

        return Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            sleep=self._sleep,
            after=count,
            before_sleep=report,
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        requested = error.retry_after if isinstance(error, ServiceError) else None
        return max(self._backoff(state), requested or 0.0)


class _NoConnection(ServiceUnreachable):
    """The service did not even answer the first question, so the failure does not depend on the file."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ServiceUnreachable) or (isinstance(error, ServiceError) and error.is_transient)


def _is_same(record: Document, file: LocalFile) -> bool:
    """Return whether the service is known to have this content; False if it must compare the bytes itself.

    Raises _Collision if it has other content, because it would refuse the file after all its bytes were sent.
    """
    checksum = record.get("checksum")
    if checksum is None:
        return False
    if (record["sizeBytes"], checksum) != (file.size, file.checksum()):
        raise _Collision("the service has another file with this id; it is unchanged, and this file cannot be stored")
    return True
