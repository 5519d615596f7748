"""Faults of the house: what keeps a run from its file or its detector although its media item may be sound.

A run that meets one waits, with its kind and reason in its row, and no Error is reported for it. What concerns one file
(its folder, the file itself) lets other runs go on; what concerns all detection (the detector, its model, room for
results) closes this process's breaker, which is tried again after a growing wait.
"""

import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from app.detection.jobs import Job
from app.errors import DetectorFailed, DetectorNotReady, HouseFault, MediaTooLarge, SettingsError, Undecodable
from app.runs.detector_process import DetectorProcess

log = structlog.get_logger()

FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between two trials while the breaker is closed; each wait is twice the one before."""

POLL_SECONDS = 0.05
"""How soon a thread looks again while another one tries whether detection works."""


class FaultKind(StrEnum):
    """What is at fault."""

    MISSING = "missing"  # a stored file is not there, and its folder is
    FILE = "file"  # a stored file cannot be opened or read, or is not the one that was stored
    FOLDER = "folder"  # a media folder is not the one that it was
    DETECTOR = "detector"  # it cannot start, or fails whatever it is given
    MODEL = "model"  # the model or its labels cannot be loaded
    RESULTS = "results"  # the database does not take what was found


OF_ONE_FILE: Final = (FaultKind.MISSING, FaultKind.FILE, FaultKind.FOLDER)
OF_ALL: Final = (FaultKind.DETECTOR, FaultKind.MODEL, FaultKind.RESULTS)


def file_fault(path: Path, error: Exception, folder_reason: Callable[[Path], str | None]) -> HouseFault:
    """The fault for which a stored file could not be opened or read. `folder_reason` tells what is wrong with its
    folder."""
    reason = folder_reason(path.parent)
    if reason:
        return HouseFault(FaultKind.FOLDER, reason)
    if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
        return HouseFault(
            FaultKind.MISSING,
            f"The stored file {path.name} is missing. Send it again, or restore it; `flask media verify` lists all.",
        )
    return HouseFault(FaultKind.FILE, str(error))


def detector_fault(error: DetectorFailed | SettingsError) -> HouseFault:
    """The fault of a detector that never came so far as to look at a media item."""
    return HouseFault(FaultKind.MODEL if isinstance(error, SettingsError) else FaultKind.DETECTOR, str(error))


def probe_detector(process: DetectorProcess) -> HouseFault | None:
    """Have the detector look at a picture that is certainly sound; the fault where it cannot, None where it can."""
    try:
        with closing(process.run(_SOUND)) as items:
            for _item in items:
                pass
    except (DetectorNotReady, SettingsError) as error:
        return detector_fault(error)
    except (DetectorFailed, MediaTooLarge, Undecodable) as error:
        return HouseFault(FaultKind.DETECTOR, f"the detector fails with a sound picture: {error}")
    return None


class DetectionBreaker:
    """Whether this process's detectors take work, and why not. Safe to use from several threads.

    One line is logged when it closes, and one when it opens.
    """

    def __init__(self, *, first_wait: float = FIRST_WAIT, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._first_wait = first_wait
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._probing = threading.Lock()
        self._fault: HouseFault | None = None
        self._closed_at = self._retry_at = self._wait = 0.0

    @property
    def fault(self) -> HouseFault | None:
        """Why it is closed; None while it is open."""
        return self._fault

    @property
    def seconds_left(self) -> float:
        """Until the next trial; 0 where one is due, or where the breaker is open."""
        return max(0.0, self._retry_at - self._monotonic()) if self._fault else 0.0

    def trip(self, fault: HouseFault, error: Exception | None = None) -> None:
        """Close, or stay closed twice as long as the last time. What the detector said of `error` is logged as well."""
        with self._guard:
            is_new = self._fault is None or self._fault.kind != fault.kind
            now = self._monotonic()
            if self._fault is None:
                self._closed_at, self._wait = now, self._first_wait
            elif now >= self._retry_at:
                self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._retry_at = now + self._wait
            self._fault = fault
        if is_new:
            said = getattr(error, "said", "")
            log.error("house_fault", kind=str(fault.kind), reason=str(fault), **({"said": said} if said else {}))

    def reset(self, *kinds: FaultKind) -> None:
        """Let work through, where one of these kinds has closed it; without kinds, whatever has."""
        with self._guard:
            if self._fault is None or (kinds and self._fault.kind not in kinds):
                return
            fault, self._fault = self._fault, None
        log.info("house_fault_over", kind=str(fault.kind), seconds=round(self._monotonic() - self._closed_at, 1))

    def begin_probe(self) -> bool:
        """Whether the caller is the one that tries now; `end_probe` is to follow then."""
        return self.seconds_left == 0.0 and self._probing.acquire(blocking=False)

    def end_probe(self) -> None:
        """Let others try."""
        self._probing.release()


def may_work(breaker: DetectionBreaker, process: DetectorProcess, stopping: threading.Event) -> bool:
    """Whether the breaker is open, after a trial where one is due; False after a wait where it is not.

    Where results could not be recorded, the next work is the trial.
    """
    if breaker.fault is None:
        return True
    if not breaker.begin_probe():
        stopping.wait(max(POLL_SECONDS, min(breaker.seconds_left, 1.0)))
        return False
    try:
        return _succeeds(breaker, process, stopping)
    finally:
        breaker.end_probe()


def _succeeds(breaker: DetectionBreaker, process: DetectorProcess, stopping: threading.Event) -> bool:
    before = breaker.fault
    if before is None or before.kind == FaultKind.RESULTS:
        return True
    fault = probe_detector(process)
    if fault is None:
        breaker.reset()
    elif not stopping.is_set():
        breaker.trip(fault)
    return fault is None


def _chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _sound_picture(side: int = 64) -> bytes:
    """A grey PNG, written here so that nothing has to be read for it."""
    header = side.to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x80" * side) * side)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


_SOUND = Job(_sound_picture(), "Image")
