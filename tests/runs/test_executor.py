"""Runs in a real detector process: it dies, the media item is bad, the service stops, another process takes over."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.database import Database
from app.database.models import DetectionRun, MediaStatus, RunFailure, RunState
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.protocol.requests import Job
from app.errors import MediaTooLarge, Unavailable, Undecodable
from app.runs.detector_process import DetectorProcess
from app.runs.executor import WAITING_IN_MEMORY, RunExecutor
from app.runs.lifecycle import RunRequest
from app.runs.waiters import RunWaiters
from tests.conftest import Clock
from tests.detection.clips import Clip
from tests.eventually import eventually
from tests.paths import PHOTOS
from tests.runs.conftest import LEASE, WANTED, World

pytestmark = pytest.mark.slow

ASTRONAUT = PHOTOS / "astronaut.jpg"
EVERY_FRAME = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.1)
FRAMES = 50
NEW, PROCESSING, PROCESSED, ERROR = 1, 2, 3, 6


class Worker:
    """An executor of one run at a time with its detector process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.processes: list[DetectorProcess] = []
        self.waiters = RunWaiters(world.database)
        self.executor = RunExecutor(world.runs, self.make, workers=1, on_released=self.waiters.notify)

    def make(self) -> DetectorProcess:
        self.processes.append(DetectorProcess(BUILT_IN_MODEL))
        return self.processes[-1]

    def start(self, path: Path, media_type: str = "Image", wanted: RunRequest = WANTED) -> tuple[str, int]:
        """Start a run of a file; return the ids of its media item and of the run."""
        media_id = self.world.media(path, media_type)
        run_id = self.world.runs.start_new(media_id, wanted)
        self.executor.start()
        return media_id, run_id

    def ended(self, run_id: int) -> DetectionRun:
        assert self.waiters.wait(run_id, 60), self.world.run(run_id).state
        return self.world.run(run_id)

    def pid(self) -> int:
        pid = self.processes[0].pid
        assert pid is not None
        return pid

    def kill_detector(self, run_id: int, attempts: int) -> None:
        """Kill the detector in the middle of an attempt."""
        eventually(lambda: self.world.run(run_id).attempts == attempts and self.world.run(run_id).frames_done > 0)
        os.kill(self.pid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes some seconds to process."""
    photo = Image.open(ASTRONAUT).convert("RGB")
    return Clip("clip.mp4", frames=FRAMES).write(tmp_path_factory.mktemp("clips"), photo)


@pytest.fixture
def worker(sqlite_url: str, clock: Clock) -> Iterator[Worker]:
    """On a database with the clock of the `clock` fixture, so that no lease expires by itself."""
    with closing(Database(sqlite_url, now=clock.sql)) as database:
        worker = Worker(World(database))
        yield worker
        worker.executor.stop()


def test_a_picture_is_processed_and_reported(worker: Worker) -> None:
    media_id, run_id = worker.start(ASTRONAUT)
    run = worker.ended(run_id)
    assert run.state == RunState.DONE
    assert run.frames_done == 1
    assert run.frames_total == 1
    assert run.attempts == 1
    assert worker.world.found(run_id) == [(0, 0)]
    assert worker.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


@pytest.mark.long
def test_a_run_whose_detector_is_killed_is_finished_on_its_second_try(worker: Worker, clip: Path) -> None:
    media_id, run_id = worker.start(clip, "Video", EVERY_FRAME)
    worker.kill_detector(run_id, attempts=1)
    run = worker.ended(run_id)
    assert run.state == RunState.DONE
    assert run.attempts == 2
    assert run.frames_done == FRAMES
    frames = [frame for frame, _ordinal in worker.world.found(run_id)]
    assert frames == sorted(frames)
    assert set(frames) <= set(range(FRAMES))
    assert worker.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_run_whose_detector_is_killed_at_every_try_ends_at_error(worker: Worker, clip: Path) -> None:
    media_id, run_id = worker.start(clip, "Video", EVERY_FRAME)
    worker.kill_detector(run_id, attempts=1)
    worker.kill_detector(run_id, attempts=2)
    run = worker.ended(run_id)
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.DETECTOR
    assert "SIGKILL" in (run.error or "")
    assert worker.world.reported(media_id) == [NEW, PROCESSING, ERROR]
    # The next media has a detector again.
    other = worker.world.runs.start_new(worker.world.media(ASTRONAUT), WANTED)
    worker.executor.wake()
    assert worker.ended(other).state == RunState.DONE


def test_what_cannot_be_decoded_fails_at_once(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    media_id, run_id = worker.start(tmp_path / "broken.jpg")
    run = worker.ended(run_id)
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.UNDECODABLE
    assert run.attempts == 1
    assert run.error
    assert worker.world.status(media_id) == MediaStatus.ERROR
    assert worker.world.reported(media_id) == [NEW, PROCESSING, ERROR]


def test_the_end_of_the_service_hands_back_what_is_under_way(worker: Worker, clip: Path) -> None:
    media_id, run_id = worker.start(clip, "Video", EVERY_FRAME)
    eventually(lambda: worker.world.run(run_id).frames_done > 0)
    pid = worker.pid()
    worker.executor.stop()
    run = worker.world.run(run_id)
    assert run.state == RunState.QUEUED
    assert run.attempts == 0
    assert run.lease_owner is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert worker.world.reported(media_id) == [NEW, PROCESSING]
    # Nobody has to wait for a lease: the next process goes on at once, and the end did not count as a failure.
    claimed = worker.world.claimed("next")
    assert claimed.attempts == 1
    assert claimed.position is not None
    assert worker.world.run(run_id).frames_done > 0


@pytest.mark.long
def test_a_video_yields_to_somebody_else_s_photo_and_goes_on_from_where_it_was(worker: Worker, clip: Path) -> None:
    world = worker.world
    _, video = worker.start(clip, "Video", EVERY_FRAME)
    eventually(lambda: world.run(video).frames_done > 0)
    pid = worker.pid()
    photo = world.runs.start_new(world.media(ASTRONAUT), replace(WANTED, user_id="bob"))
    assert worker.ended(photo).state == RunState.DONE
    done = world.run(video).frames_done
    assert 0 < done < FRAMES
    run = worker.ended(video)
    assert run.state == RunState.DONE
    assert run.attempts == 1
    assert run.frames_done == FRAMES
    assert run.boxes_done == len(world.found(video))
    assert run.lease_epoch > run.results_epoch == 1
    assert worker.pid() == pid  # no detector was replaced for it


@pytest.mark.long
def test_a_video_yields_to_a_picture_that_is_not_stored(worker: Worker, clip: Path) -> None:
    _, video = worker.start(clip, "Video", EVERY_FRAME)
    eventually(lambda: worker.world.run(video).frames_done > 0)
    [result] = worker.executor.detect(Job(ASTRONAUT.read_bytes(), "Image"), 60, user="bob").results
    assert [found.label for found in result.objects] == ["person"]
    assert worker.world.run(video).state != RunState.DONE
    assert worker.ended(video).frames_done == FRAMES


@pytest.mark.long
def test_a_run_that_is_cancelled_is_dropped_and_the_detector_goes_on_with_the_next(worker: Worker, clip: Path) -> None:
    media_id, video = worker.start(clip, "Video", EVERY_FRAME)
    eventually(lambda: worker.world.run(video).frames_done > 0)
    worker.world.runs.cancel(media_id, "ada", user="ada")
    photo = worker.world.runs.start_new(worker.world.media(ASTRONAUT), WANTED)
    worker.executor.wake()
    assert worker.ended(photo).state == RunState.DONE
    assert worker.world.reported(media_id) == [NEW, PROCESSING, ERROR]


@pytest.mark.long
def test_a_run_that_finds_more_than_it_may_ends_at_error_and_says_so(worker: Worker, clip: Path) -> None:
    executor = RunExecutor(worker.world.runs, worker.make, workers=1, on_released=worker.waiters.notify, max_boxes=3)
    media_id = worker.world.media(clip, "Video")
    run_id = worker.world.runs.start_new(media_id, EVERY_FRAME)
    executor.start()
    try:
        run = worker.ended(run_id)
    finally:
        executor.stop()
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.TOO_LARGE
    assert "MAX_BOXES_PER_RUN" in (run.error or "")
    assert worker.world.reported(media_id) == [NEW, PROCESSING, ERROR]


@pytest.mark.long
def test_a_run_that_went_to_another_process_is_dropped(worker: Worker, clip: Path, clock: Clock) -> None:
    media_id, run_id = worker.start(clip, "Video", EVERY_FRAME)
    eventually(lambda: worker.world.run(run_id).frames_done > 0)
    taken = None
    while taken is None:
        clock.advance(LEASE + 1)
        taken = worker.world.runs.claim("another")
    pid = worker.pid()
    eventually(lambda: worker.processes[0].pid != pid)
    assert worker.world.runs.finish(taken, [])
    assert worker.world.found(run_id) == []
    assert worker.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_picture_in_memory_is_answered_with_what_is_on_it(worker: Worker) -> None:
    worker.executor.start()
    found = worker.executor.detect(Job(ASTRONAUT.read_bytes(), "Image"), 60, user="ada")
    [result] = found.results
    assert found.warnings == ()
    assert [found.label for found in result.objects] == ["person"]


def test_a_bad_picture_in_memory_is_its_senders_to_hear_of(worker: Worker) -> None:
    worker.executor.start()
    with pytest.raises(Undecodable):
        worker.executor.detect(Job(b"\xff\xd8\xff\xe0 no picture", "Image"), 60, user="ada")
    bomb = b"P6 60000 60000 255\n"
    with pytest.raises((Undecodable, MediaTooLarge)):
        worker.executor.detect(Job(bomb, "Image"), 60, user="ada")


def test_pictures_in_memory_wait_in_a_line_of_bounded_length(worker: Worker) -> None:
    """No detector works yet, so the first clients wait for their time limit, and later ones are refused at once."""
    job = Job(ASTRONAUT.read_bytes(), "Image")
    with ThreadPoolExecutor(WAITING_IN_MEMORY + 1) as clients:
        asked = [clients.submit(worker.executor.detect, job, 1.0, user="ada") for _ in range(WAITING_IN_MEMORY + 1)]
        refusals = [answer.exception() for answer in asked]
    assert all(isinstance(refusal, Unavailable) for refusal in refusals)
    assert sorted("Too many" in str(refusal) for refusal in refusals) == [False] * WAITING_IN_MEMORY + [True]


def test_pictures_in_memory_and_runs_take_turns(worker: Worker) -> None:
    """The pictures came first, but the run waits for one of them only."""
    world, ended = worker.world, list[str]()
    executor = RunExecutor(
        world.runs,
        lambda: DetectorProcess(BUILT_IN_MODEL),
        workers=1,
        on_released=lambda _run_id, _ended: ended.append("run"),
    )

    def detect() -> None:
        executor.detect(Job(ASTRONAUT.read_bytes(), "Image"), 60, user="ada")
        ended.append("picture")

    world.runs.start_new(world.media(ASTRONAUT), WANTED)
    with ThreadPoolExecutor(WAITING_IN_MEMORY) as clients:
        asked = [clients.submit(detect) for _ in range(WAITING_IN_MEMORY)]
        time.sleep(0.2)
        executor.start()
        for answer in asked:
            answer.result()
    executor.stop()
    assert ended.count("picture") == WAITING_IN_MEMORY
    assert ended.index("run") <= 1


def test_the_end_of_the_service_answers_whoever_waits_in_memory(worker: Worker) -> None:
    job = Job(ASTRONAUT.read_bytes(), "Image")
    with pytest.raises(Unavailable):  # one that has gone by now still stands in the line
        worker.executor.detect(job, 0.05, user="ada")
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(worker.executor.detect, job, 30, user="ada")
        time.sleep(0.2)
        began = time.monotonic()
        worker.executor.stop()
        assert isinstance(waiting.exception(), Unavailable)
    with pytest.raises(Unavailable):
        worker.executor.detect(job, 30, user="ada")
    assert time.monotonic() - began < 10
