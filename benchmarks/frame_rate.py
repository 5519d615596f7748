"""Frames a second of one clip, on the cores named: python -m benchmarks.frame_rate KIND CORES CLIP [DATABASE]

KIND is `bare`, a loop of this project's decoding and its detector and nothing else; `run`, the service's own path:
an executor, its detector process and the database; `decode` and `infer`, what each half of the loop takes alone; or
`onnxruntime`, the model's session with an input made ready.
Prints one JSON document: seconds and processor seconds (children included) for so many frames.
"""

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from app.database import Database
from app.database.models import DetectionRun, Media
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.inference.runtime import onnxruntime
from app.detection.inference.yolo import YoloDetector
from app.detection.limits import ProcessLimits
from app.detection.video.decode import Video
from app.media.status import create_media
from app.outbox.queue import OutboxQueue
from app.runs.detector_process import DetectorProcess
from app.runs.executor import RunExecutor
from app.runs.lifecycle import RunRequest, Runs

CONFIDENCE, INTERVAL = 0.45, 0.5
Frames = int


def bare(clip: Path, _database: str) -> Callable[[], Frames]:
    """Decode a sampled frame, look at it, and so on."""
    detector = YoloDetector(BUILT_IN_MODEL)

    def loop() -> Frames:
        with clip.open("rb") as file, Video(file, interval=INTERVAL, fit=detector.useful_side) as video:
            return sum(1 for frame in video.frames() if detector.detect(frame.picture, CONFIDENCE) is not None)

    return loop


def decode(clip: Path, _database: str) -> Callable[[], Frames]:
    """The decoder's half of the bare loop."""
    fit = YoloDetector(BUILT_IN_MODEL).useful_side

    def loop() -> Frames:
        with clip.open("rb") as file, Video(file, interval=INTERVAL, fit=fit) as video:
            return sum(1 for _ in video.frames())

    return loop


def infer(clip: Path, _database: str) -> Callable[[], Frames]:
    """The detector's half of the bare loop, on one frame again and again."""
    detector = YoloDetector(BUILT_IN_MODEL)
    with clip.open("rb") as file, Video(file, interval=INTERVAL, fit=detector.useful_side) as video:
        frame = next(video.frames())
    return lambda: sum(1 for _ in range(100) if detector.detect(frame.picture, CONFIDENCE) is not None)


def session(_clip: Path, _database: str) -> Callable[[], Frames]:
    """Nothing but the model, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = onnxruntime.InferenceSession(str(BUILT_IN_MODEL), options, providers=["CPUExecutionProvider"])
    entrance = model.get_inputs()[0]
    feed = {entrance.name: np.zeros(entrance.shape, np.float32)}
    return lambda: sum(1 for _ in range(100) if model.run(None, feed))


def run(clip: Path, database_url: str) -> Callable[[], Frames]:
    """A run as the service does it; its executor stays for the next one."""
    database = Database(database_url)
    queue = OutboxQueue(database.now)
    runs = Runs(database, queue, "benchmark")
    ended = threading.Event()
    make = partial(DetectorProcess, BUILT_IN_MODEL, limits=ProcessLimits(niceness=0))
    executor = RunExecutor(runs, make, workers=1, on_released=lambda _run_id, _ended: ended.set())
    executor.start()

    def whole() -> Frames:
        ended.clear()
        run_id = _ask(database, queue, runs, clip)
        executor.wake()
        ended.wait()
        with database.read_transaction() as looking:
            return looking.get_one(DetectionRun, run_id).frames_done

    return whole


def _ask(database: Database, queue: OutboxQueue, runs: Runs, clip: Path) -> int:
    media_id = uuid.uuid4().hex[:16]
    link = clip.with_name(f"{media_id}{clip.suffix}")
    link.symlink_to(clip)  # each media has a path of its own
    media = Media(
        id=media_id,
        name=clip.name,
        path=str(link),
        media_type="Video",
        user_id="ada",
        size_bytes=1,
        created_at=1.8e9,
    )
    with database.write_transaction() as connection:
        create_media(connection, queue, media, request_id=None)
        return runs.add(connection, media_id, RunRequest("ada", CONFIDENCE, INTERVAL))


KINDS: dict[str, Callable[[Path, str], Callable[[], Frames]]] = {
    "bare": bare,
    "run": run,
    "decode": decode,
    "infer": infer,
    "onnxruntime": session,
}


def _processor_seconds() -> float:
    """Of this process and of the detector process, which is still alive."""
    ticks = sum(sum(map(int, _stat(pid)[13:15])) for pid in (os.getpid(), *_children()))
    return ticks / os.sysconf("SC_CLK_TCK")


def _children() -> list[int]:
    listing = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for children in listing for pid in children.read_text().split()]


def _stat(pid: int) -> list[str]:
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return ["", name, *rest.split()]


def main() -> None:
    """Once to warm up, once measured."""
    kind, cores, clip = sys.argv[1], {int(core) for core in sys.argv[2].split(",")}, Path(sys.argv[3])
    os.sched_setaffinity(0, cores)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    work = KINDS[kind](clip, sys.argv[4] if len(sys.argv) > 4 else "")
    work()
    processor, began = _processor_seconds(), time.perf_counter()
    frames = work()
    seconds = time.perf_counter() - began
    print(json.dumps({"frames": frames, "seconds": seconds, "processor": _processor_seconds() - processor}))


if __name__ == "__main__":
    with closing(sys.stdout):
        main()
        sys.stdout.flush()
        os._exit(0)  # the executor's threads are of no more use
