"""One file to the service: asked for first, then sent, in as many attempts as the failures that may pass take.

Every attempt begins with the question whether the media item is there, so an upload whose answer was lost is not sent
twice, and a list of files goes on where it was stopped. "There" means equal content, not equal ids: the id is a
sample's. A large file is sent in parts, and goes on behind the bytes that the service has.
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

from app.client.exchange import Document, ServiceRefused, ServiceSilent
from app.client.local_file import FileUnfit, LocalFile, opened
from app.client.options import UploadOptions
from app.client.progress import Progress
from app.client.resumable import ResumableSender
from app.client.service import RemoteService, Stored
from app.client.unfinished import UnfinishedUploads
from app.errors import DetectionsError, UnsupportedMedia

Outcome = Literal["uploaded", "duplicate", "already there", "failed", "not tried"]

MIB = 1 << 20
RESUMABLE_ABOVE = 8 * MIB
LARGEST_PART = 64 * MIB
NO_ACCESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file. `ends_list`: what went wrong would go wrong with every other file too. `resumed_at`: the
    bytes that the service had when the upload last went on after a break; None where it did not."""

    path: Path
    outcome: Outcome
    media_id: str | None = None
    status: int | None = None
    reason: str | None = None
    ends_list: bool = False
    resumed_at: int | None = None


class _Collision(DetectionsError):
    """The service has other content under this file's id."""


class _WholeSender:
    """Sends one file in one request; an attempt after a failure begins at its first byte."""

    reached = 0
    resumed_at = None

    def __init__(self, service: RemoteService, file: LocalFile, options: UploadOptions, progress: Progress) -> None:
        self._service = service
        self._file = file
        self._options = options
        self._progress = progress

    def send(self) -> Stored:
        self._progress.sent(0)
        return self._service.send(self._file, self._options, self._progress.sent)


_Sender = _WholeSender | ResumableSender


class Uploader:
    """Uploads with at most `tries` attempts in a row that bring no byte further; `sleep` waits so many seconds.

    Files above 8 MiB, and those above `part_bytes`, are sent in parts of that size.
    """

    def __init__(
        self,
        service: RemoteService,
        options: UploadOptions,
        *,
        tries: int,
        unfinished: UnfinishedUploads,
        part_bytes: int = LARGEST_PART,
        backoff: wait_base = BACKOFF,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._options = options
        self._tries = tries
        self._unfinished = unfinished
        self._part_bytes = part_bytes
        self._backoff = backoff
        self._sleep = sleep

    def upload(self, path: Path, progress: Progress) -> Result:
        """Bring a file to the service; what goes wrong is in the result."""
        media_id: str | None = None
        try:
            with opened(path) as file, self._sender(file, progress) as sender:
                media_id = file.media_id
                outcome, record = self._retrying(sender, progress)(self._attempt, file, sender)
        except (UnsupportedMedia, FileUnfit, _Collision) as error:
            return Result(path, "failed", media_id, reason=str(error))
        except ServiceRefused as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=error.status in NO_ACCESS)
        except ServiceSilent as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=isinstance(error, _NobodyThere))
        if record["id"] != media_id:
            return Result(path, "failed", media_id, reason=f"changed while it was sent; stored as {record['id']}")
        return Result(path, outcome, media_id, record["mediaStatus"], resumed_at=sender.resumed_at)

    @contextmanager
    def _sender(self, file: LocalFile, progress: Progress) -> Iterator[_Sender]:
        if file.size <= min(RESUMABLE_ABOVE, self._part_bytes):
            yield _WholeSender(self._service, file, self._options, progress)
            return
        # An upload that was begun with other options, or of a state of the file before this one, is another upload.
        key = (self._service.url, file.media_id, file.modified_ns, self._options.metadata(file.name))
        with self._unfinished.remembered(*key) as remembered:
            yield ResumableSender(
                self._service, file, self._options, remembered, part_bytes=self._part_bytes, progress=progress
            )

    def _attempt(self, file: LocalFile, sender: _Sender) -> tuple[Outcome, Document]:
        try:
            record = self._service.media(file.media_id)
        except ServiceSilent as error:
            raise _NobodyThere(str(error)) from error
        if record is None or not _is_same(record, file):
            stored = sender.send()
            return "duplicate" if stored.duplicate else "uploaded", stored.record
        if self._options.rerun or (self._options.detect and record["run"] is None):
            record = self._detected(file.media_id)
        return "already there", record

    def _detected(self, media_id: str) -> Document:
        """A run on what was stored without one; somebody else's that began meanwhile is as good."""
        try:
            return self._service.detect(media_id, self._options)
        except ServiceRefused as error:
            record = self._service.media(media_id) if error.status == HTTPStatus.CONFLICT else None
            if record is None:
                raise
            return record

    def _retrying(self, sender: _Sender, progress: Progress) -> Retrying:
        reached = 0

        def count(state: RetryCallState) -> None:
            """Forget the failures before this one where bytes have arrived since: a link may break many times."""
            nonlocal reached
            if sender.reached > reached:
                state.attempt_number = 1
            reached = sender.reached

        def tell(state: RetryCallState) -> None:
            if state.outcome and state.next_action:
                progress.waits(str(state.outcome.exception()), state.next_action.sleep)

        return Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._tries),
            wait=self._wait,
            sleep=self._sleep,
            after=count,
            before_sleep=tell,
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ServiceRefused) else None
        return max(self._backoff(state), asked or 0.0)


class _NobodyThere(ServiceSilent):
    """Not even the question was answered: it is not the file that the link breaks under."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ServiceSilent) or (isinstance(error, ServiceRefused) and error.may_pass)


def _is_same(record: Document, file: LocalFile) -> bool:
    """Whether the service is known to have these bytes; False where it has to compare them itself.

    Raises _Collision where it has others: it would refuse them, once they were all sent.
    """
    checksum = record.get("checksum")
    if checksum is None:
        return False
    if (record["sizeBytes"], checksum) != (file.size, file.checksum()):
        raise _Collision(
            "another file with this id is there; it was left alone, and this one cannot be stored beside it"
        )
    return True
