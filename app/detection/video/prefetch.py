"""Frames decoded in a thread of their own, ahead of whoever looks at them: decoding and inference overlap.

Both let go of the interpreter's lock while they work, so two cores are used by one run; on one core a frame costs a
switch of threads more. A frame is only decoded once there is room for it: memory does not grow with the video.
"""

import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from app.detection.detector import Frame

FRAMES_AHEAD = 4
"""Frames that are decoded, or being decoded, while one is looked at: decoding is uneven, key frames cost the most."""


@dataclass(frozen=True, slots=True)
class _End:
    """There are no more frames, because of `error` where there is one."""

    error: BaseException | None = None


def ahead(frames: Iterable[Frame], limit: int = FRAMES_AHEAD) -> Generator[Frame]:
    """The same frames in the same order, and the error that ended them; closing it ends the thread, and waits for that.

    Nothing else may touch the frames' source until then.
    """
    decoding = _Decoding(frames, limit)
    with closing(decoding):
        yield from decoding.frames()


class _Decoding:
    def __init__(self, frames: Iterable[Frame], limit: int) -> None:
        self._source = frames
        self._room = threading.Semaphore(limit)
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
            self._room.release()
            yield item

    def close(self) -> None:
        self._stopping = True
        self._room.release()
        self._thread.join()

    def _decode(self) -> None:
        try:
            frames = iter(self._source)
            while self._has_room() and (frame := next(frames, None)) is not None:
                self._decoded.put(frame)
        except BaseException as error:  # noqa: BLE001 (it is raised again where the frames are asked for)
            self._decoded.put(_End(error))
        else:
            self._decoded.put(_End())

    def _has_room(self) -> bool:
        self._room.acquire()
        return not self._stopping
