"""House faults: the run waits with a reason, is never reported as Error, and continues by itself."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.database import Database
from app.database.models import RunState
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import ProcessLimits
from app.detection.protocol.requests import Job
from app.errors import HouseFault
from app.runs import blocked_runs
from app.runs.blocked_runs import BlockedRuns
from app.runs.detection_breaker import DetectionBreaker
from app.runs.detector_process import DetectorProcess
from app.runs.executor import RunExecutor
from app.runs.house_faults import FaultKind
from tests.eventually import eventually
from tests.paths import ROOT
from tests.runs.conftest import WANTED, World

pytestmark = pytest.mark.slow

ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
NEW, PROCESSING, PROCESSED = 1, 2, 3
SOON = 0.1
RUNS = int(os.environ.get("HOUSE_RUNS", "2"))
SECONDS = float(os.environ.get("HOUSE_SECONDS", "0"))
"""How many runs wait for the fault to end, and for how long: reliability row 41 has 50 and 60."""


class House:
    """An executor of one detector and the release of blocked runs, with short waits."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self.world = World(database)
        self.model = tmp_path / "model.onnx"
        shutil.copy(BUILT_IN_MODEL, self.model)
        self.limits = ProcessLimits()
        self.folder_reason: str | None = None
        self.breaker = DetectionBreaker(first_wait=SOON)
        self.executor = RunExecutor(
            self.world.runs,
            lambda: DetectorProcess(self.model, limits=self.limits),
            workers=1,
            breaker=self.breaker,
            folder_reason=lambda _folder: self.folder_reason,
        )
        self.released = BlockedRuns(database, self.breaker, lambda _folder: self.folder_reason, every=SOON)

    def start(self, path: Path = ASTRONAUT) -> tuple[str, int]:
        media_id = self.world.media(path)
        run_id = self.world.runs.start_new(media_id, WANTED)
        self.executor.start()
        self.released.start()
        return media_id, run_id

    def waits_for(self, run_id: int) -> str | None:
        return self.world.run(run_id).waiting_kind

    def counts(self) -> dict[FaultKind, int]:
        with self.world.database.read_transaction() as session:
            return {kind: count for kind, count in blocked_runs.counts(session).items() if count}

    def stop(self) -> None:
        self.released.stop()
        self.executor.stop()

    def copies(self, folder: Path) -> list[tuple[str, int]]:
        """Add media items with a run each, whose files are in a folder; return their ids."""
        folder.mkdir()
        queued = []
        for number in range(RUNS):
            shutil.copy(ASTRONAUT, folder / f"{number}.jpg")
            media_id = self.world.media(folder / f"{number}.jpg")
            queued.append((media_id, self.world.runs.start_new(media_id, WANTED)))
        return queued

    def assert_done(self, media_id: str, run_id: int) -> None:
        eventually(lambda: self.world.run(run_id).state == RunState.DONE)
        assert self.world.reported(media_id) == [NEW, PROCESSING, PROCESSED]
        assert self.world.run(run_id).attempts == 1
        assert self.waits_for(run_id) is None


@pytest.fixture
def house(sqlite_url: str, tmp_path: Path) -> Iterator[House]:
    with closing(Database(sqlite_url, busy_seconds=0.3)) as database:
        yield House(database, tmp_path)


def test_a_run_whose_file_is_missing_waits_for_it_and_goes_on_once_it_is_back(house: House, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    shutil.copy(ASTRONAUT, photo)
    media_id = house.world.media(photo)
    photo.rename(tmp_path / "elsewhere.jpg")
    run_id = house.world.runs.start_new(media_id, WANTED)
    with capture_logs() as logged:
        house.executor.start()
        house.released.start()
        try:
            eventually(lambda: house.waits_for(run_id) == FaultKind.MISSING)
            assert "photo.jpg is missing" in str(house.world.run(run_id).waiting_for)
            assert house.counts() == {FaultKind.MISSING: 1}
            other = house.world.runs.start_new(house.world.media(ASTRONAUT), WANTED)
            house.executor.wake()
            eventually(lambda: house.world.run(other).state == RunState.DONE)
            assert house.breaker.fault is None
            time.sleep(5 * SOON)
            assert house.world.run(run_id).lease_epoch == 1  # nothing claims it meanwhile
            (tmp_path / "elsewhere.jpg").rename(photo)
            house.assert_done(media_id, run_id)
        finally:
            house.stop()
    assert [line["event"] for line in logged].count("run_blocked") == 1


@pytest.mark.long
def test_runs_wait_while_their_folder_is_not_the_one_that_it_was(house: House, tmp_path: Path) -> None:
    runs = house.copies(tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    house.folder_reason = "The media folder images has no marker of this database."
    house.executor.start()
    house.released.start()
    try:
        eventually(lambda: house.counts() == {FaultKind.FOLDER: RUNS})
        time.sleep(SECONDS)
        house.folder_reason = None  # a folder is there again, and the files are not
        eventually(lambda: house.counts() == {FaultKind.MISSING: RUNS})
        (tmp_path / "elsewhere").rename(tmp_path / "images")
        for media_id, run_id in runs:
            house.assert_done(media_id, run_id)
    finally:
        house.stop()


def test_a_file_that_is_not_the_stored_one_is_no_fault_of_the_media_item(house: House, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    shutil.copy(ASTRONAUT, photo)
    media_id = house.world.media(photo)
    photo.unlink()
    photo.symlink_to(ASTRONAUT)
    run_id = house.world.runs.start_new(media_id, WANTED)
    house.executor.start()
    house.released.start()
    try:
        eventually(lambda: house.waits_for(run_id) == FaultKind.FILE)
        photo.unlink()
        shutil.copy(ASTRONAUT, photo)
        house.assert_done(media_id, run_id)
    finally:
        house.stop()


@pytest.mark.long
def test_runs_wait_while_the_model_cannot_be_loaded_and_go_on_once_it_can(house: House, tmp_path: Path) -> None:
    content = house.model.read_bytes()
    runs = house.copies(tmp_path / "images")
    house.model.write_bytes(b"no model")
    with capture_logs() as logged:
        house.executor.start()
        house.released.start()
        try:
            eventually(lambda: house.counts() == {FaultKind.MODEL: 1})
            with pytest.raises(HouseFault):
                house.executor.ensure_capacity("ada")
            eventually(lambda: house.breaker.seconds_left > 2 * SOON)  # it was tried again
            time.sleep(SECONDS)
            house.model.write_bytes(content)
            for media_id, run_id in runs:
                house.assert_done(media_id, run_id)
        finally:
            house.stop()
    events = [line["event"] for line in logged]
    assert events.count("house_fault") == 1
    assert events.count("house_fault_over") == 1


def test_runs_wait_while_there_is_no_memory_for_the_detector(house: House) -> None:
    house.limits = ProcessLimits(memory_bytes=200 << 20)
    media_id, run_id = house.start()
    try:
        eventually(lambda: house.waits_for(run_id) == FaultKind.DETECTOR)
        assert house.breaker.fault is not None
        assert house.world.reported(media_id) == [NEW, PROCESSING]
    finally:
        house.stop()


def test_an_in_memory_picture_gets_the_fault_as_its_error(house: House) -> None:
    house.model.write_bytes(b"no model")
    house.executor.start()
    try:
        with pytest.raises(HouseFault, match="model"):
            house.executor.detect(Job(ASTRONAUT.read_bytes(), "Image"), 30, user="ada")
    finally:
        house.executor.stop()


def test_a_run_that_cannot_be_recorded_is_not_counted_and_goes_on_once_it_can(house: House) -> None:
    """Another process holds the write lock for longer than a transaction waits."""
    path = house.world.database.url.database
    media_id = house.world.media(ASTRONAUT)
    run_id = house.world.runs.start_new(media_id, WANTED)
    lock = sqlite3.connect(str(path), check_same_thread=False)

    with closing(lock), capture_logs() as logged:
        house.executor.start()
        eventually(lambda: house.world.run(run_id).state == RunState.RUNNING)
        lock.execute("BEGIN IMMEDIATE")
        eventually(lambda: house.breaker.fault is not None)
        assert house.breaker.fault is not None
        assert house.breaker.fault.kind == FaultKind.RESULTS
        lock.rollback()
        try:
            house.assert_done(media_id, run_id)
        finally:
            house.executor.stop()
    assert [line["event"] for line in logged].count("house_fault") == 1


@pytest.mark.long
def test_a_detector_takes_the_smaller_of_its_limit_and_the_hard_one_of_its_service() -> None:
    """As under `ulimit -v` or LimitAS=."""
    hard = 3_900_000 * 1024
    script = (
        "from app.runs.detector_process import DetectorProcess;"
        "from app.detection.inference.model_file import BUILT_IN_MODEL;"
        "process = DetectorProcess(BUILT_IN_MODEL); process.load(); print(process.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (hard, hard)),  # noqa: PLW1509
    ) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert resource.prlimit(pid, resource.RLIMIT_AS) == (hard, hard)
        service.communicate("\n", timeout=20)


def test_each_wait_of_a_tripped_breaker_is_twice_the_one_before(clock_seconds: list[float]) -> None:
    breaker = DetectionBreaker(first_wait=1.0, monotonic=lambda: clock_seconds[0])
    waits = []
    for _ in range(6):
        breaker.trip(HouseFault(FaultKind.DETECTOR, "it cannot start"))
        waits.append(breaker.seconds_left)
        clock_seconds[0] += breaker.seconds_left
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    breaker.reset(FaultKind.RESULTS)
    assert breaker.fault is not None
    breaker.reset()
    assert breaker.fault is None


@pytest.fixture
def clock_seconds() -> list[float]:
    """A clock that a test moves."""
    return [100.0]
