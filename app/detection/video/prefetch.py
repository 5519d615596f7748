"""Prefetch of decoded frames in a thread, so that decoding and inference overlap.

Both release the interpreter lock while they work, so one run uses two cores. A frame is decoded only when the queue has
room for it, so memory does not grow with the video.
"""

import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from app.detection.detector import Frame

PREFETCHED_FRAMES = 4
"""Frames decoded, or being decoded, during inference of another: key frames take much longer than others."""


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the frames, caused by `error` if there is one."""

    error: BaseException | None = None


def prefetch(frames: Iterable[Frame], limit: int = PREFETCHED_FRAMES) -> Generator[Frame]:
    """Yield the same frames in the same order, and raise the error that ended them.

    Closing the generator stops the thread and waits for it. Nothing else may use the source of the frames until then.
    """
    prefetcher = _Prefetcher(frames, limit)
    with closing(prefetcher):
        yield from prefetcher.frames()


class _Prefetcher:
    def __init__(self, frames: Iterable[Frame], limit: int) -> None:
        self._source = frames
        self._free_slots = threading.Semaphore(limit)
        self._decoded: SimpleQueue[Frame | _End] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._decode, name="decoding", daemon=True)
        self._thread.start()

    def frames(self) -> Generator[Frame]:
        while True:
            item = self._decoded.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            self._free_slots.release()
            yield item

    def close(self) -> None:
        self._stopping = True
        self._free_slots.release()
        self._thread.join()

    def _decode(self) -> None:
        try:
            frames = iter(self._source)
            while self._acquire_slot() and (frame := next(frames, None)) is not None:
                self._decoded.put(frame)
        except BaseException as error:  # noqa: BLE001 (raised again by `frames`)
            self._decoded.put(_End(error))
        else:
            self._decoded.put(_End())

    def _acquire_slot(self) -> bool:
        self._free_slots.acquire()
        return not self._stopping
