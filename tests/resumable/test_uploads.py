"""Resumable uploads without HTTP, on both databases: durability, expiry, exclusive writers, and crashes."""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import xxhash
from sqlalchemy import select

from app.database import Database, WriteTransaction
from app.database.models import DetectionRun, Media, ResumableUpload
from app.errors import StorageFull, Unavailable, UploadGone, UploadLocked, UploadNotFound, UploadTakenOver
from app.ingest import Ingest, IngestResult, InTransaction, OnReceived, Received
from app.outbox.queue import OutboxQueue
from app.resumable import rows
from app.resumable.finishing import Finishing, RunDefaults
from app.resumable.limits import Limits
from app.resumable.maintenance import UploadMaintenance
from app.resumable.parts import Part
from app.resumable.records import UploadRecords
from app.resumable.uploads import NewUpload, ResumableUploads
from app.runs.lifecycle import RunRequest, Runs
from app.runs.speculative_run import SpeculativeRun
from tests.conftest import Clock
from tests.ingest.intake import Intake, open_intake, picture

PHOTO = picture("photo")
HOUR = 3600.0
SAID = f"filename {base64.b64encode(b'photo.jpg').decode()},detect ZmFsc2U="
RERUN = f"filename {base64.b64encode(b'photo.jpg').decode()},rerun"


@dataclass
class World:
    """One process's uploads over a folder and a database, with a test clock."""

    intake: Intake
    clock: Clock
    takeover: float = 0.2
    uploads: ResumableUploads = field(init=False)
    records: UploadRecords = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Continue as another process, without what was in memory."""
        database = self.intake.database
        self.records = UploadRecords(database, HOUR)
        runs = Runs(database, OutboxQueue(database.now), "detector")
        finishing = Finishing(self.records, self.intake.ingest, runs, no_run, RunDefaults(0.5, 1.0))
        limits = Limits(max_bytes=1 << 20, per_user=10, takeover=self.takeover)
        self.uploads = ResumableUploads(self.records, self.intake.storage, finishing, limits)

    def maintenance(self) -> UploadMaintenance:
        return UploadMaintenance(self.records, self.uploads)

    def new(self, length: int | None = len(PHOTO)) -> str:
        return self.uploads.create(NewUpload("ada", SAID, length)).id

    def append(self, upload_id: str, offset: int, *chunks: bytes) -> ResumableUpload:
        return self.uploads.append(upload_id, "ada", Part(offset, lambda _check: chunks), nullcontext)

    def find(self, upload_id: str) -> ResumableUpload:
        return self.uploads.find(upload_id, "ada")

    def files(self) -> list[str]:
        return [path.name for path in self.intake.leftovers()]


def no_run(*_wanted: object) -> SpeculativeRun:
    raise AssertionError("no run was asked for")


@pytest.fixture
def world(tmp_path: Path, timed_database: Database, clock: Clock) -> World:
    return World(open_intake(tmp_path / "media", timed_database), clock)


def test_what_expired_goes_with_its_file_and_what_goes_on_stays(world: World) -> None:
    late, going_on = world.new(), world.new()
    world.append(late, 0, PHOTO[:100])
    world.clock.advance(HOUR - 1)
    world.append(going_on, 0, PHOTO[:100])
    world.maintenance().work()
    assert len(world.files()) == 2
    world.clock.advance(2)
    with pytest.raises(UploadGone):
        world.find(late)
    with pytest.raises(UploadGone):
        world.append(late, 100, PHOTO[100:])
    world.maintenance().work()
    assert len(world.files()) == 1
    with pytest.raises(UploadNotFound):
        world.find(late)
    assert world.append(going_on, 100, PHOTO[100:]).state == "complete"


def test_what_has_ended_is_told_for_an_hour(world: World) -> None:
    upload = world.new()
    assert world.append(upload, 0, PHOTO).state == "complete"
    world.clock.advance(rows.RESULT_SECONDS - 1)
    world.maintenance().work()
    assert world.find(upload).state == "complete"
    world.clock.advance(2)
    world.maintenance().work()
    with pytest.raises(UploadNotFound):
        world.find(upload)
    world.intake.assert_sound()


def test_a_sweep_leaves_what_goes_on_later_and_takes_what_no_upload_has(world: World) -> None:
    upload = world.new()
    world.append(upload, 0, PHOTO[:100])
    stray = world.intake.incoming / f"{os.urandom(16).hex()}-1000.upload"
    stray.write_bytes(b"of a creation that a crash cut short")
    assert world.intake.sweep.run().leftovers == 1
    assert not stray.exists()
    assert world.append(upload, 100, PHOTO[100:]).state == "complete"
    assert world.files() == []


def test_bytes_that_were_written_and_never_counted_are_written_over(world: World) -> None:
    """After a kill the file is longer than its record says."""
    upload = world.new()
    world.append(upload, 0, PHOTO[:100])
    with Path(world.find(upload).file or "").open("ab") as file:
        file.write(b"of the part that died")
    world.restart()
    assert world.uploads.finish_if_complete(upload, "ada", nullcontext, None).received == 100
    assert world.append(upload, 100, PHOTO[100:]).state == "complete"
    world.intake.assert_sound()


@pytest.mark.parametrize("cuts", [(), (1,), (3000, 5000), tuple(range(500, 8000, 500))])
@pytest.mark.parametrize("restarts", [False, True])
def test_checksum_and_id_are_those_of_the_whole_however_it_was_cut(
    world: World, cuts: tuple[int, ...], restarts: bool
) -> None:
    upload, begin = world.new(), 0
    for end in (*cuts, len(PHOTO)):
        if restarts:
            world.restart()
        world.append(upload, begin, PHOTO[begin:end])
        begin = end
    [media] = world.intake.rows()
    assert media.checksum == xxhash.xxh3_128_hexdigest(PHOTO)
    world.intake.assert_sound()


def test_an_upload_whose_client_left_at_the_last_byte_is_finished_by_any_process(world: World) -> None:
    upload = world.new()
    world.append(upload, 0, PHOTO[:-1])
    # As after a crash between the last byte's commit and the ingest.
    with Path(world.find(upload).file or "").open("ab") as file:
        file.write(PHOTO[-1:])
    assert world.records.advance(world.find(upload), len(PHOTO))
    world.restart()
    assert world.maintenance().finish_abandoned() == 0  # its client may still return
    world.clock.advance(rows.ABANDONED_SECONDS + 1)
    assert world.maintenance().finish_abandoned() == 1
    assert world.find(upload).state == "complete"
    world.intake.assert_sound()


def test_an_upload_whose_bytes_are_all_there_is_finished_by_whoever_asks_where_it_stands(world: World) -> None:
    upload = world.new()
    with Path(world.find(upload).file or "").open("ab") as file:
        file.write(PHOTO)
    assert world.records.advance(world.find(upload), len(PHOTO))
    assert world.uploads.finish_if_complete(upload, "ada", nullcontext, None).state == "complete"


class FullDisk(Ingest):
    """An ingest on a full disk."""

    def run_received(
        self, received: Received, in_transaction: InTransaction = print, *, on_received: OnReceived = print
    ) -> IngestResult:
        raise StorageFull(f"no space for {received.name}")


def test_a_full_disk_at_the_end_is_told_and_the_same_upload_goes_on_once_there_is_room(world: World) -> None:
    database = world.intake.database
    full = FullDisk(database, OutboxQueue(database.now), world.intake.storage)
    other = World(replace(world.intake, ingest=full), world.clock)
    upload = world.new()
    with pytest.raises(StorageFull):
        other.append(upload, 0, PHOTO)
    assert world.find(upload).state == "receiving"
    assert world.find(upload).received == len(PHOTO)
    assert world.append(upload, len(PHOTO)).state == "complete"


class LosingRuns(Runs):
    """Runs of a process that dies as soon as a new one is queued."""

    def start_new(
        self,
        media_id: str,
        wanted: RunRequest,
        in_transaction: Callable[[WriteTransaction], None] = lambda _transaction: None,
    ) -> int:
        super().start_new(media_id, wanted, in_transaction)
        raise Unavailable("the process died")


def test_a_new_run_that_was_asked_for_begins_once_though_its_process_dies_before_it_answers(world: World) -> None:
    world.append(world.new(), 0, PHOTO)  # known by now
    database = world.intake.database

    def uploads_with(runs: Runs) -> ResumableUploads:
        run_of = partial(SpeculativeRun, runs, owner="tests", give=lambda _run: False)
        finishing = Finishing(world.records, world.intake.ingest, runs, run_of, RunDefaults(0.5, 1.0))
        limits = Limits(max_bytes=1 << 20, per_user=10)
        return ResumableUploads(world.records, world.intake.storage, finishing, limits)

    dying = uploads_with(LosingRuns(database, OutboxQueue(database.now), "detector"))
    again = dying.create(NewUpload("ada", RERUN, len(PHOTO))).id
    with pytest.raises(Unavailable):
        dying.append(again, "ada", Part(0, lambda _check: [PHOTO]), nullcontext)
    next_process = uploads_with(Runs(database, OutboxQueue(database.now), "detector"))
    state = next_process.finish_if_complete(again, "ada", nullcontext, None)
    assert state.state == "complete"
    assert state.duplicate is True
    with database.read_transaction() as session:
        assert len(session.scalars(select(DetectionRun)).all()) == 1
    assert world.intake.sweep.run().leftovers == 1


def test_a_new_part_takes_over_from_one_that_hangs(world: World) -> None:
    upload, second = world.new(), list[ResumableUpload]()
    other = World(world.intake, world.clock, takeover=5)

    def hang(check: Callable[[], None]) -> Iterator[bytes]:
        yield PHOTO[:1000]
        other.records.request_takeover(upload)  # the second request's first step
        check()

    with pytest.raises(UploadTakenOver):
        world.uploads.append(upload, "ada", Part(0, hang), nullcontext)
    second.append(other.append(upload, 1000, PHOTO[1000:]))
    assert second[0].state == "complete"
    world.intake.assert_sound()


def test_who_does_not_let_go_keeps_others_out_and_two_never_write_at_once(world: World) -> None:
    upload, other = world.new(), World(world.intake, world.clock)
    refused = list[Exception]()

    def frozen(_check: Callable[[], None]) -> Iterator[bytes]:
        yield PHOTO[:1000]
        with pytest.raises(UploadLocked) as caught:
            other.append(upload, 0, PHOTO)
        refused.append(caught.value)
        yield PHOTO[1000:]

    assert world.uploads.append(upload, "ada", Part(0, frozen), nullcontext).state == "complete"
    assert len(refused) == 1
    world.intake.assert_sound()


def test_a_writer_that_lost_its_lock_changes_nothing(world: World) -> None:
    upload = world.new()

    def lose(_check: Callable[[], None]) -> Iterator[bytes]:
        yield PHOTO[:1000]
        assert world.records.advance(world.find(upload), 500)  # like another host that got the lock

    with pytest.raises(UploadLocked):
        world.uploads.append(upload, "ada", Part(0, lose), nullcontext)
    assert world.find(upload).received == 500


def test_what_came_before_an_error_counts_however_little(world: World) -> None:
    upload = world.new()

    def broken(_check: Callable[[], None]) -> Iterator[bytes]:
        yield PHOTO[:1]
        raise Unavailable("the link broke")

    with pytest.raises(Unavailable):
        world.uploads.append(upload, "ada", Part(0, broken), nullcontext)
    assert world.find(upload).received == 1


def test_no_slot_is_held_but_while_bytes_come(world: World) -> None:
    held = list[str]()

    class Slot(AbstractContextManager[None]):
        def __enter__(self) -> None:
            held.append("taken")

        def __exit__(self, *_error: object) -> None:
            held.append("given back")

    upload = world.new()
    part = Part(0, lambda _check: [PHOTO[:10]] if held == ["taken"] else [])
    assert world.uploads.append(upload, "ada", part, Slot).received == 10
    world.uploads.finish_if_complete(upload, "ada", Slot, None)
    world.uploads.terminate(upload, "ada", Slot)
    assert held == ["taken", "given back"]


def test_the_parts_of_a_final_upload_are_gone_with_its_making(world: World) -> None:
    pieces = [PHOTO[:3000], PHOTO[3000:3001], PHOTO[3001:]]
    ids = [world.uploads.create(NewUpload("ada", "", len(piece), is_partial=True)).id for piece in pieces]
    for part, piece in zip(ids, pieces, strict=True):
        world.append(part, 0, piece)
    final = world.uploads.concatenate("ada", SAID, ids, nullcontext)
    assert world.uploads.concatenate("ada", SAID, ids, nullcontext).id == final.id
    assert world.uploads.finish_if_complete(final.id, "ada", nullcontext, None).state == "complete"
    world.intake.assert_sound()
    with world.intake.database.read_transaction() as session:
        assert session.scalars(select(Media.size_bytes)).all() == [len(PHOTO)]
    folders = (world.intake.incoming, world.intake.folder / "videos" / ".incoming")
    assert [path for folder in folders for path in folder.iterdir()] == []
