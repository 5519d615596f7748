"""The circuit breaker of a process's detectors: after a fault of all detection, one of them probes at a time."""

import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing

import structlog

from app.detection.protocol.requests import Job
from app.errors import DetectorFailed, DetectorNotReady, HouseFault, MediaTooLarge, SettingsError, Undecodable
from app.runs.detector_process import DetectorProcess
from app.runs.house_faults import FaultKind, detector_fault

log = structlog.get_logger()

FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between two probes; each wait is twice the one before."""

POLL_SECONDS = 0.05
"""How soon a thread checks the breaker again while another thread probes."""


class DetectionBreaker:
    """Suspends the detectors of one process while a fault keeps all of them from working. Thread-safe.

    One line is logged when it trips and one when it is reset.
    """

    def __init__(self, *, first_wait: float = FIRST_WAIT, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._first_wait = first_wait
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._probing = threading.Lock()
        self._fault: HouseFault | None = None
        self._tripped_at = self._retry_at = self._wait = 0.0

    @property
    def fault(self) -> HouseFault | None:
        """Why detection is suspended; None while it works."""
        return self._fault

    @property
    def seconds_left(self) -> float:
        """Seconds until the next probe; 0 if one is due, or if detection is not suspended."""
        return max(0.0, self._retry_at - self._monotonic()) if self._fault else 0.0

    def trip(self, fault: HouseFault, error: Exception | None = None) -> None:
        """Suspend detection, for twice as long as before if it was suspended.

        The standard error text of a DetectorNotReady `error` is logged with the fault.
        """
        with self._guard:
            is_new = self._fault is None or self._fault.kind != fault.kind
            now = self._monotonic()
            if self._fault is None:
                self._tripped_at, self._wait = now, self._first_wait
            elif now >= self._retry_at:
                self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._retry_at = now + self._wait
            self._fault = fault
        if is_new:
            stderr = getattr(error, "stderr", "")
            log.error("house_fault", kind=str(fault.kind), reason=str(fault), **({"stderr": stderr} if stderr else {}))

    def reset(self, *kinds: FaultKind) -> None:
        """Resume detection if a fault of one of these kinds suspended it, or any fault if no kind is given."""
        with self._guard:
            if self._fault is None or (kinds and self._fault.kind not in kinds):
                return
            fault, self._fault = self._fault, None
        log.info("house_fault_over", kind=str(fault.kind), seconds=round(self._monotonic() - self._tripped_at, 1))

    def begin_probe(self) -> bool:
        """Whether the caller is to probe now; if so, it calls `end_probe` afterwards."""
        return self.seconds_left == 0.0 and self._probing.acquire(blocking=False)

    def end_probe(self) -> None:
        """Let another thread probe."""
        self._probing.release()


def may_work(breaker: DetectionBreaker, process: DetectorProcess, stopping: threading.Event) -> bool:
    """Whether the caller's detector may take work; probes with it if a probe is due, otherwise waits and returns False.

    After a fault of storing results the next run is the probe.
    """
    if breaker.fault is None:
        return True
    if not breaker.begin_probe():
        stopping.wait(max(POLL_SECONDS, min(breaker.seconds_left, 1.0)))
        return False
    try:
        return _probe(breaker, process, stopping)
    finally:
        breaker.end_probe()


def probe_detector(process: DetectorProcess) -> HouseFault | None:
    """Run a picture that is certainly sound; return the fault if that fails, None if the detector works."""
    try:
        with closing(process.run(_SOUND)) as items:
            for _item in items:
                pass
    except (DetectorNotReady, SettingsError) as error:
        return detector_fault(error)
    except (DetectorFailed, MediaTooLarge, Undecodable) as error:
        return HouseFault(FaultKind.DETECTOR, f"the detector fails with a sound picture: {error}")
    return None


def _probe(breaker: DetectionBreaker, process: DetectorProcess, stopping: threading.Event) -> bool:
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
    """Return a grey PNG, made here so that a probe needs no file."""
    header = side.to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x80" * side) * side)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


_SOUND = Job(_sound_picture(), "Image")
