"""Detection's figures, all in one run: python -m benchmarks.detection [--rounds 5] [--only NAME] [--hours 2]

frames   frames a second of a run through the executor, its process and the database, against a bare loop of decoding
         and inference on the same clip, on one core and on two; and what bounds both
photo    POST /detect of a photo over HTTP against decoding and inference in a process of nothing else
memory   the detector process's memory through a video of so many hours (with --hours only)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import requests
import structlog
from rich.console import Console
from rich.table import Table

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.inference.yolo import YoloDetector
from app.detection.limits import MAX_PIXELS
from app.detection.pictures.decode import decode_picture
from app.detection.protocol.requests import Job
from app.detection.results import FrameResult
from app.runs.detector_process import DetectorProcess
from benchmarks.clips import PHOTO, write_clip
from benchmarks.places import Places, places
from tests.paths import ROOT
from tests.system.service import Service, token

Row = tuple[str, str, str, str]
Measured = dict[str, float]


def frames(at: Places, rounds: int) -> list[Row]:
    """In turns, each in a process of its own that may use the cores named."""
    clip, url = at.folder / "camera.mp4", at.url("sqlite")
    write_clip(clip, width=1920, height=1080, rate=25, frames=500, quality=21)
    one, two = _cores()
    parts = [("bare", one), ("run", one), ("bare", two), ("run", two), ("decode", one), ("infer", one)]
    parts.append(("onnxruntime", one))
    taken: dict[tuple[str, str], list[Measured]] = {part: [] for part in parts}
    for _round in range(rounds):
        for kind, cores in parts:
            taken[kind, cores].append(_measured(kind, cores, clip, url))
    rows = [
        _rate("a run against a bare loop, 1 core", taken["run", one], taken["bare", one], "at least 0.95"),
        _rate("a run against a bare loop, 2 cores", taken["run", two], taken["bare", two], "at least 1.5"),
    ]
    for kind in ("decode", "infer", "onnxruntime"):
        each = statistics.median(_processor_ms(one_of) for one_of in taken[kind, one])
        rows.append(
            (
                f"{kind} alone, of the processor",
                f"{clip.stat().st_size * 8 / 20e6:.1f} Mbit/s",
                f"{each:.1f} ms a frame",
                "",
            )
        )
    return rows


def _cores() -> tuple[str, str]:
    available = sorted(os.sched_getaffinity(0))
    return str(available[0]), ",".join(map(str, available[:2]))


def _measured(kind: str, cores: str, clip: Path, url: str) -> Measured:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.frame_rate", kind, cores, str(clip), url]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    measured: Measured = json.loads(told)
    return measured


def _rate(what: str, ours: list[Measured], theirs: list[Measured], aim: str) -> Row:
    rates = [[one["frames"] / one["seconds"] for one in side] for side in (ours, theirs)]
    ratio = statistics.median(our / their for our, their in zip(*rates, strict=True))
    work = statistics.median(map(_processor_ms, ours)) / statistics.median(map(_processor_ms, theirs))
    figure = f"{statistics.median(rates[0]):.1f} against {statistics.median(rates[1]):.1f} frames/s"
    return (
        what,
        f"{work:.2f} of the processor time",
        figure,
        f"{ratio:.2f}, best {max(rates[0]) / max(rates[1]):.2f} ({aim})",
    )


def _processor_ms(measured: Measured) -> float:
    return measured["processor"] / measured["frames"] * 1000


def photo(at: Places, rounds: int) -> list[Row]:
    """In turns: a new photo over HTTP, on disk and in the database when it is answered; and the bare work on it."""
    detector = YoloDetector(BUILT_IN_MODEL)
    content = PHOTO.read_bytes()
    rows: list[Row] = []
    for kind in ("sqlite", "postgresql"):
        folder = at.folder / f"service-{kind}"
        folder.mkdir()
        service = Service(folder, at.url(kind), None, DETECTION_WORKERS="1").start()
        try:
            with requests.Session() as session:
                session.trust_env = False
                session.headers["Authorization"] = f"Bearer {token()}"

                def over_http(session: requests.Session = session, url: str = service.url) -> None:
                    body = content + uuid.uuid4().bytes  # behind the picture's end: another media, the same picture
                    answer = session.post(
                        f"{url}/detect?name=photo.jpg", data=body, headers={"Content-Type": "image/jpeg"}
                    )
                    answer.raise_for_status()

                def alone() -> None:
                    picture = decode_picture(BytesIO(content), max_pixels=MAX_PIXELS, fit=detector.useful_side).picture
                    detector.detect(picture, 0.45)

                ours, theirs = _alternate(over_http, alone, 20 * rounds)
        finally:
            service.stop()
        figure = f"{ours * 1000:.1f} ms against {theirs * 1000:.1f} ms"
        rows.append(
            (
                "POST /detect of a photo against the bare work",
                kind,
                figure,
                f"{(ours - theirs) * 1000:.1f} ms more (at most 15)",
            )
        )
    return rows


def _alternate(first: Callable[[], None], second: Callable[[], None], rounds: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 3):
        for work, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            work()
            if number >= 3:  # by then everything is loaded
                taken.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def memory(at: Places, hours: float) -> list[Row]:
    """The resident memory of the process from the first minute of the video to its last."""
    clip = at.folder / "long.mp4"
    write_clip(clip, width=320, height=180, rate=5, frames=int(hours * 3600 * 5), quality=30)
    with closing(DetectorProcess(BUILT_IN_MODEL)) as process:
        items = process.run(Job(clip, "Video", frame_interval=5.0))
        sizes = [_resident(process.pid or 0) for item in items if isinstance(item, FrameResult) and item.index >= 30]
    tenth = len(sizes) // 10
    early, late = statistics.median(sizes[:tenth]), statistics.median(sizes[-tenth:])
    figure = (
        f"{early / 2**20:.1f} MiB in the first tenth, {late / 2**20:.1f} in the last, {max(sizes) / 2**20:.1f} at most"
    )
    return [
        (
            f"the detector process through {hours:g} h of video",
            f"{len(sizes)} frames",
            figure,
            f"{(late - early) / 2**20:+.1f} MiB",
        )
    ]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Run them all, or one, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of everything that is measured in turns")
    parser.add_argument("--hours", type=float, help="the length of a video whose detector's memory is watched")
    parser.add_argument("--only", choices=["frames", "photo", "memory"])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    table = Table("what", "with", "figure", "ratio")
    parts: dict[str, Callable[[Places], list[Row]]] = {
        "frames": lambda at: frames(at, options.rounds),
        "photo": lambda at: photo(at, options.rounds),
        "memory": lambda at: memory(at, options.hours) if options.hours else [],
    }
    with places() as at:
        for name, measure in parts.items():
            for row in measure(at) if options.only in (None, name) else ():
                table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
