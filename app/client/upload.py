"""One file to the service: looked for first, then sent, again and again while the trouble is one that may pass.

Every try begins with the question whether the media is there, so an upload whose answer was lost is not sent twice,
and a list of files goes on where it was stopped. "There" means equal content, not equal ids: the id is a sample's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from app.client.local_file import FileUnfit, LocalFile, OnBytes, opened
from app.client.service import Document, RemoteService, ServiceRefused, ServiceSilent
from app.errors import DetectionsError, UnsupportedMedia

Outcome = Literal["uploaded", "duplicate", "already there", "failed", "not tried"]
OnWait = Callable[[str, float], None]
"""Called before a wait with why, and for how many seconds."""

NO_ACCESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file. `ends_list`: what went wrong would go wrong with every other file too."""

    path: Path
    outcome: Outcome
    media_id: str | None = None
    status: int | None = None
    reason: str | None = None
    ends_list: bool = False


class _Collision(DetectionsError):
    """The service has other content under this file's id."""


class Uploader:
    """Uploads with at most `tries` tries a file; `sleep` waits so many seconds."""

    def __init__(
        self,
        service: RemoteService,
        *,
        detect: bool,
        tries: int,
        backoff: wait_base = BACKOFF,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._detect = detect
        self._tries = tries
        self._backoff = backoff
        self._sleep = sleep

    def upload(self, path: Path, on_bytes: OnBytes, on_wait: OnWait) -> Result:
        """Bring a file to the service; what goes wrong is in the result."""
        media_id: str | None = None
        try:
            with opened(path) as file:
                media_id = file.media_id
                outcome, record = self._retrying(on_wait)(self._try, file, on_bytes)
        except (UnsupportedMedia, FileUnfit, _Collision) as error:
            return Result(path, "failed", media_id, reason=str(error))
        except ServiceRefused as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=error.status in NO_ACCESS)
        except ServiceSilent as error:
            return Result(path, "failed", media_id, reason=str(error), ends_list=isinstance(error, _NobodyThere))
        if record["id"] != media_id:
            return Result(path, "failed", media_id, reason=f"changed while it was sent; stored as {record['id']}")
        return Result(path, outcome, media_id, record["mediaStatus"])

    def _try(self, file: LocalFile, on_bytes: OnBytes) -> tuple[Outcome, Document]:
        try:
            record = self._service.media(file.media_id)
        except ServiceSilent as error:
            raise _NobodyThere(str(error)) from error
        if record is None or not _is_same(record, file):
            on_bytes(0)
            sent, duplicate = self._service.send(file, detect=self._detect, on_bytes=on_bytes)
            return "duplicate" if duplicate else "uploaded", sent
        if self._detect and record["run"] is None:
            record = self._detected(file.media_id)
        return "already there", record

    def _detected(self, media_id: str) -> Document:
        """A run on what was stored without one; somebody else's that began meanwhile is as good."""
        try:
            return self._service.detect(media_id)
        except ServiceRefused as error:
            record = self._service.media(media_id) if error.status == HTTPStatus.CONFLICT else None
            if record is None:
                raise
            return record

    def _retrying(self, on_wait: OnWait) -> Retrying:
        def tell(state: RetryCallState) -> None:
            if state.outcome and state.next_action:
                on_wait(str(state.outcome.exception()), state.next_action.sleep)

        return Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._tries),
            wait=self._wait,
            sleep=self._sleep,
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
