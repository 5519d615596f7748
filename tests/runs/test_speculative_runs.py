"""Speculative runs: pictures that an idle detector begins while they are being recorded."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import event, select, text

from app.database import Database, WriteTransaction
from app.database.models import DetectionRun, Media, RunFailure, RunState
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.ingest import Upload
from app.runs.detector_process import DetectorProcess
from app.runs.executor import POLL_SECONDS, RunExecutor
from app.runs.idle_detectors import IdleDetectors
from app.runs.lifecycle import RunRequest
from app.runs.speculative_run import SpeculativeRun
from app.runs.waiters import RunWaiters
from tests.conftest import Clock
from tests.eventually import eventually
from tests.ingest.intake import open_intake, picture
from tests.paths import PHOTOS
from tests.runs.conftest import LEASE, WANTED, World

pytestmark = pytest.mark.slow

ASTRONAUT = (PHOTOS / "astronaut.jpg").read_bytes()
NEW, PROCESSING, PROCESSED, ERROR = 1, 2, 3, 6

Step = Callable[[WriteTransaction, Media], object]


def nothing(_connection: WriteTransaction, _media: Media) -> None:
    pass


class Desk:
    """Ingests pictures and runs them with one detector."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.world = World(database)
        self.intake = open_intake(folder, database)
        self.waiters = RunWaiters(database)
        self.process = DetectorProcess(BUILT_IN_MODEL)
        self.executor = RunExecutor(
            self.world.runs,
            lambda: self.process,
            workers=1,
            on_released=self.waiters.notify,
            speculative_seconds=600,  # longer than any test: a detector that is not let go shows
        )

    def start(self) -> "Desk":
        """Start the detector and wait until it is idle."""
        self.process.load()
        self.executor.start()
        self.await_idle()
        return self

    def await_idle(self) -> None:
        eventually(lambda: self.executor.idle == 1)

    def upload(
        self, content: bytes = ASTRONAUT, wanted: RunRequest = WANTED, *, before: Step = nothing, after: Step = nothing
    ) -> tuple[str, int]:
        """Ingest a picture; `before` and `after` run in its transaction around the run. Returns both ids."""
        executor = self.executor
        with SpeculativeRun(self.world.runs, wanted, owner=executor.owner, give=executor.begin_speculative) as run:

            def record(connection: WriteTransaction, media: Media) -> None:
                before(connection, media)
                run.record(connection, media)
                after(connection, media)

            upload = Upload("photo.jpg", wanted.user_id, [content])
            receipt = self.intake.ingest.run(upload, record, on_received=run.begin)
            return receipt.media.id, run.recorded()

    def ended(self, run_id: int) -> DetectionRun:
        assert self.waiters.wait(run_id, 60), self.world.run(run_id).state
        return self.world.run(run_id)


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> Iterator[Desk]:
    """On a database of each kind."""
    desk = Desk(tmp_path / "media", database)
    yield desk.start()
    desk.executor.stop()


@pytest.fixture
def sqlite_desk(tmp_path: Path, sqlite_url: str) -> Iterator[Desk]:
    with closing(Database(sqlite_url)) as database:
        desk = Desk(tmp_path / "media", database)
        yield desk.start()
        desk.executor.stop()


def test_media_status_messages_and_the_leased_run_are_one_transaction_and_its_end_another(desk: Desk) -> None:
    commits: list[str] = []
    event.listen(desk.world.database.writer, "commit", lambda _connection: commits.append("commit"))
    leased: list[tuple[str, int, str | None, int]] = []

    def look(connection: WriteTransaction, media: Media) -> None:
        run = connection.scalars(select(DetectionRun).where(DetectionRun.media_id == media.id)).one()
        leased.append((run.state, run.lease_epoch, run.lease_owner, run.attempts))

    media_id, run_id = desk.upload(after=look)
    run = desk.ended(run_id)
    assert leased == [("running", 1, desk.executor.owner, 1)]
    assert run.state == RunState.DONE
    assert run.attempts == 1
    assert run.lease_epoch == 1
    assert run.frames_done == 1
    assert run.frames_total == 1
    assert desk.world.found(run_id) == [(0, 0)]
    assert desk.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]
    assert desk.world.status(media_id) == PROCESSED
    assert len(commits) == 2


def test_a_picture_is_begun_before_it_is_recorded_and_needs_no_name_then(sqlite_desk: Desk) -> None:
    """Once the detector has the file, both its names are removed, so that opening it later would fail."""
    folders = (sqlite_desk.intake.images, sqlite_desk.intake.incoming)

    def lose_the_file(_connection: WriteTransaction, _media: Media) -> None:
        eventually(lambda: sqlite_desk.executor.idle == 0)
        time.sleep(0.2)  # from taking the job to sending it
        for path in [path for folder in folders for path in folder.iterdir() if path.is_file()]:
            path.unlink()

    _media_id, run_id = sqlite_desk.upload(before=lose_the_file)
    run = sqlite_desk.ended(run_id)
    assert run.state == RunState.DONE
    assert run.attempts == 1
    assert sqlite_desk.world.found(run_id) == [(0, 0)]


@pytest.mark.long
def test_a_recording_that_fails_frees_the_detector_and_keeps_nothing(desk: Desk) -> None:
    def fail(_connection: WriteTransaction, _media: Media) -> NoReturn:
        eventually(lambda: desk.executor.idle == 0)
        raise RuntimeError("the recording failed")

    pid = desk.process.pid
    with pytest.raises(RuntimeError, match="the recording failed"):
        desk.upload(after=fail)
    assert desk.intake.rows() == []
    assert desk.intake.stored() == set()
    assert desk.world.runs.active() == {}
    desk.await_idle()
    media_id, run_id = desk.upload()
    assert desk.ended(run_id).state == RunState.DONE
    assert desk.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]
    assert desk.process.pid == pid


def test_a_picture_that_no_decoder_takes_ends_its_run_and_not_the_detector(sqlite_desk: Desk) -> None:
    pid = sqlite_desk.process.pid
    media_id, run_id = sqlite_desk.upload(picture("noise"))
    run = sqlite_desk.ended(run_id)
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.UNDECODABLE
    assert sqlite_desk.world.reported(media_id) == [NEW, PROCESSING, ERROR]
    assert sqlite_desk.process.pid == pid


@pytest.mark.long
def test_a_detector_that_dies_of_a_speculative_run_has_tried_once(sqlite_desk: Desk) -> None:
    pid = sqlite_desk.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it takes the job, and never comes to it

    def kill(_connection: WriteTransaction, _media: Media) -> None:
        eventually(lambda: sqlite_desk.executor.idle == 0)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)

    media_id, run_id = sqlite_desk.upload(after=kill)
    run = sqlite_desk.ended(run_id)
    assert run.state == RunState.DONE
    assert run.attempts == 2
    assert sqlite_desk.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_run_is_handed_back_where_the_detectors_have_stopped_meanwhile(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    media_id, run_id = desk.upload(after=lambda _session, _media: desk.executor.stop())
    run = desk.world.run(run_id)
    assert run.state == RunState.QUEUED
    assert run.attempts == 0
    assert run.lease_owner is None
    again = desk.world.claimed("another")
    assert again.run_id == run_id
    assert again.attempts == 1
    assert desk.world.runs.finish(again, [])
    assert desk.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


@pytest.mark.long
def test_while_the_detector_is_busy_pictures_wait_as_rows(sqlite_desk: Desk) -> None:
    pid = sqlite_desk.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    _media, first = sqlite_desk.upload()
    media_id, second = sqlite_desk.upload(ASTRONAUT + b"another")
    assert sqlite_desk.world.run(first).state == RunState.RUNNING
    assert sqlite_desk.world.run(second).state == RunState.QUEUED
    assert sqlite_desk.world.reported(media_id) == [NEW]
    os.kill(pid, signal.SIGCONT)
    assert [sqlite_desk.ended(run_id).state for run_id in (first, second)] == [RunState.DONE] * 2
    assert sqlite_desk.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def begin(world: World, folder: Path, content: bytes = ASTRONAUT, user: str = "ada") -> int:
    """Record a picture whose run was begun by a process that then dies; return the run's id."""
    intake, ids = open_intake(folder, world.database), list[int]()

    def record(connection: WriteTransaction, media: Media) -> None:
        wanted = RunRequest(user_id=user, confidence=0.45, frame_interval=0.5)
        ids.append(world.runs.add_speculative(connection, media, wanted, "a process that dies")[0])

    intake.ingest.run(Upload("photo.jpg", user, [content]), record)
    return ids[0]


def test_a_run_whose_process_dies_behind_the_recording_is_continued_once_its_lease_has_run_out(
    world: World, clock: Clock, tmp_path: Path
) -> None:
    run_id = begin(world, tmp_path / "media")
    clock.advance(LEASE - 1)
    assert world.runs.claim("another") is None
    clock.advance(2)
    claimed = world.claimed("another")
    assert claimed.run_id == run_id
    assert claimed.attempts == 1
    assert claimed.epoch == 2
    assert world.runs.finish(claimed, [])
    assert world.reported(claimed.media_id) == [NEW, PROCESSING, PROCESSED]


def test_nothing_is_begun_out_of_turn(world: World, clock: Clock, tmp_path: Path) -> None:
    """Another run waits that this process does not know of, so the picture's run is queued behind it."""
    waiting = world.runs.start_new(world.media(), WANTED)
    begun = begin(world, tmp_path / "media", user="grace")
    assert world.run(begun).state == RunState.QUEUED
    assert world.run(begun).lease_owner is None
    assert world.reported(world.run(begun).media_id) == [NEW]
    assert world.claimed("one").run_id == waiting
    clock.advance(LEASE + 1)  # its process has died: it waits again
    later = begin(world, tmp_path / "media", picture("later"), user="grace")
    assert world.run(later).state == RunState.QUEUED


def test_a_detector_that_cannot_poll_for_runs_is_not_idle(sqlite_desk: Desk) -> None:
    def rename(before: str, after: str) -> None:
        with sqlite_desk.world.database.write_transaction() as session:
            session.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

    rename("detection_run", "out_of_reach")
    eventually(lambda: sqlite_desk.executor.idle == 0)
    time.sleep(POLL_SECONDS * 1.5)
    assert sqlite_desk.executor.idle == 0
    rename("out_of_reach", "detection_run")
    sqlite_desk.await_idle()


def test_a_detector_does_not_wait_for_a_recording_for_ever(tmp_path: Path, world: World) -> None:
    intake, runs = open_intake(tmp_path / "media", world.database), list[SpeculativeRun]()
    for name in ("late", "early"):
        run = SpeculativeRun(world.runs, WANTED, owner="one", give=lambda _run: True)
        intake.ingest.run(Upload("photo.jpg", WANTED.user_id, [picture(name)]), run.record, on_received=run.begin)
        run.file.close()
        runs.append(run)
    late, early = runs
    assert late.wait_until_recorded(0.01, lambda: False) is None
    assert world.run(late.recorded()).state == RunState.QUEUED, "the detector stopped waiting: the run was requeued"
    run_id = early.recorded()
    with early:
        pass  # its end comes too late
    claimed = early.wait_until_recorded(0.01, lambda: True)
    assert claimed is not None
    assert claimed.run_id == run_id


def test_a_detector_that_is_called_to_something_else_is_given_nothing(world: World) -> None:
    run = SpeculativeRun(world.runs, WANTED, owner="one", give=lambda _run: True)
    idle = IdleDetectors()
    with ThreadPoolExecutor(1) as threads:
        assert not idle.give(run)  # nobody is there
        seen = idle.calls
        idle.call()
        assert idle.wait(seen, 30) is None  # called before it waited
        waiting = threads.submit(idle.wait, idle.calls, 30)
        eventually(lambda: len(idle) == 1)
        assert idle.give(run)
        assert not idle.give(run)
        assert waiting.result(30) is run
        waiting = threads.submit(idle.wait, idle.calls, 30)
        eventually(lambda: len(idle) == 1)
        idle.call()
        assert not idle.give(run)
        assert waiting.result(30) is None
        assert len(idle) == 0
