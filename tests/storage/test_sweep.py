"""Sweeping after interrupted uploads: what is removed, what stays, and what is waited for."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from app.database import Database, WriteTransaction
from app.database.models import Media, MediaStatus
from app.ingest import Upload
from app.media.status import create_media
from app.outbox.queue import OutboxQueue
from app.storage import lock_orphan
from app.storage.sweep import SweepReport
from tests.ingest.intake import Intake, open_intake, picture, twin_of

PHOTO = picture("photo")
NOTHING = SweepReport(0, 0)


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    return open_intake(tmp_path / "media", database)


def media_of(intake: Intake, content: bytes, extension: str = "jpg") -> Media:
    final = intake.final(content, extension)
    return Media(
        id=final.stem,
        name="photo.jpg",
        path=str(final),
        media_type="Image",
        media_status=MediaStatus.NEW,
        user_id="ada",
        size_bytes=len(content),
        created_at=1.0,
    )


def test_there_is_nothing_to_sweep_after_uploads_that_ended_well(intake: Intake) -> None:
    intake.send(PHOTO)
    assert intake.sweep.run() == NOTHING
    intake.assert_sound()


def test_what_a_cut_off_upload_left_is_removed(intake: Intake) -> None:
    (intake.incoming / f"{0:032x}.part").write_bytes(PHOTO[:100])
    (intake.incoming / f"{1:032x}.part").touch()
    assert intake.sweep.run() == SweepReport(leftovers=2, orphans=0)
    assert intake.leftovers() == []
    assert intake.stored() == set()


def test_an_upload_under_way_is_left_alone(intake: Intake) -> None:
    reports: list[SweepReport] = []

    def chunks() -> Iterator[bytes]:
        reports.append(intake.sweep.run())
        yield PHOTO
        reports.append(intake.sweep.run())

    def while_recording(_connection: WriteTransaction, _media: Media) -> None:
        with ThreadPoolExecutor(1) as pool:
            reports.append(pool.submit(intake.sweep.run).result(60))

    intake.ingest.run(Upload("photo.jpg", "ada", chunks()), while_recording)
    assert reports == [NOTHING] * 3
    intake.assert_sound()
    assert len(intake.rows()) == 1


def test_the_orphan_of_a_crash_is_removed_with_its_proof(intake: Intake) -> None:
    intake.orphan(PHOTO)
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    assert intake.leftovers() == []
    assert intake.stored() == set()
    assert intake.rows() == []
    assert intake.creates() == 0
    assert not intake.send(PHOTO).duplicate


def test_a_recorded_file_only_loses_its_second_name(intake: Intake) -> None:
    intake.send(PHOTO)
    os.link(intake.final(PHOTO), intake.incoming / f"{0:032x}.part")
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=0)
    intake.assert_sound()
    assert len(intake.rows()) == 1


def test_a_foreign_file_is_never_touched(intake: Intake) -> None:
    foreign = intake.orphan(PHOTO, proof=False)
    (intake.images / "notes.txt").write_text("not ours")
    (intake.incoming / "folder").mkdir()
    (intake.incoming / "link").symlink_to(foreign)
    assert intake.sweep.run() == NOTHING
    assert foreign.read_bytes() == PHOTO
    assert intake.stored() == {foreign.name, "notes.txt"}
    assert len(intake.leftovers()) == 2


def test_equal_content_under_another_inode_is_no_proof(intake: Intake) -> None:
    foreign = intake.orphan(PHOTO, proof=False)
    (intake.incoming / f"{0:032x}.part").write_bytes(PHOTO)
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=0)
    assert foreign.read_bytes() == PHOTO


def test_a_second_final_name_in_a_media_that_was_never_ours_to_name_stays(intake: Intake) -> None:
    orphan = intake.orphan(PHOTO)
    os.link(orphan, intake.images / "named by a person.jpg")
    intake.sweep.run()
    assert intake.stored() == {"named by a person.jpg"}


@pytest.mark.parametrize(("recorded", "orphaned"), [("jpg", "jpeg"), ("jpeg", "jpg")])
def test_the_orphaned_twin_of_a_recorded_file_goes_and_the_recorded_one_stays(
    recorded: str, orphaned: str, intake: Intake
) -> None:
    intake.send(PHOTO, f"photo.{recorded}")
    intake.orphan(PHOTO, orphaned)
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    assert intake.stored() == {intake.final(PHOTO, recorded).name}
    intake.assert_sound()


def test_a_colliding_orphan_under_the_other_extension_goes_too(intake: Intake) -> None:
    intake.send(PHOTO, "photo.jpg")
    intake.orphan(twin_of(PHOTO), "jpeg")
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    assert intake.final(PHOTO).read_bytes() == PHOTO


@pytest.mark.parametrize("commits", [True, False])
def test_the_sweep_waits_for_a_transaction_that_may_yet_record_the_file(
    commits: bool, intake: Intake, database: Database, database_url: str
) -> None:
    """The database still works for a dead uploader: its lock is gone, but its commit may follow."""
    intake.orphan(PHOTO)
    other = Database(database_url)
    inserted, finish = threading.Event(), threading.Event()

    def record() -> None:
        with other.write_transaction() as session:
            create_media(session, OutboxQueue(other.now), media_of(intake, PHOTO), request_id=None)
            inserted.set()
            assert finish.wait(30)
            if not commits:
                session.rollback()

    with ThreadPoolExecutor(2) as pool:
        recording = pool.submit(record)
        assert inserted.wait(30)
        sweeping = pool.submit(intake.sweep.run)
        assert not finish.wait(0.3)
        assert not sweeping.done()
        assert intake.final(PHOTO).exists()
        finish.set()
        recording.result(60)
        report = sweeping.result(60)
    other.close()
    assert intake.final(PHOTO).exists() == commits
    assert report == SweepReport(leftovers=1, orphans=0 if commits else 1)
    assert len(intake.rows()) == (1 if commits else 0)
    intake.assert_sound()


def test_a_busy_database_puts_the_judgement_off(tmp_path: Path, database_url: str) -> None:
    holder, waiter = Database(database_url), Database(database_url, busy_seconds=0.2)
    intake = open_intake(tmp_path / "media", waiter)
    orphan = intake.orphan(PHOTO)
    try:
        with holder.write_transaction() as session:
            session.execute(text("SELECT 1" if holder.is_sqlite else "LOCK TABLE media IN SHARE ROW EXCLUSIVE MODE"))
            assert intake.sweep.run() == NOTHING
            assert orphan.exists()
            assert len(intake.leftovers()) == 1
        assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    finally:
        holder.close()
        waiter.close()


def test_a_name_whose_lock_is_held_is_left_for_the_next_sweep(intake: Intake) -> None:
    orphan = intake.orphan(PHOTO)
    with lock_orphan(orphan, wait=0):
        assert intake.sweep.run() == NOTHING
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)


def test_one_name_that_cannot_be_checked_does_not_keep_the_others(intake: Intake) -> None:
    (intake.incoming / f"{0:032x}.part").write_bytes(PHOTO[:50])
    held = intake.incoming / f"{1:032x}.part"
    held.write_bytes(PHOTO)
    (intake.incoming / f"{2:032x}.part").write_bytes(PHOTO[:70])
    with lock_orphan(held, wait=0):
        assert intake.sweep.run() == SweepReport(leftovers=2, orphans=0)
    assert intake.leftovers() == [held]


def test_sweeps_and_uploads_of_one_content_at_once_end_in_one_sound_media(intake: Intake) -> None:
    stop = threading.Event()

    def sweep_on() -> None:
        while not stop.is_set():
            intake.sweep.run()

    with ThreadPoolExecutor(6) as pool:
        sweeps = [pool.submit(sweep_on) for _ in range(2)]
        try:
            for number in range(10):
                content = picture(number)
                intake.orphan(twin_of(content) if number % 2 else content)
                for upload in [pool.submit(intake.send, content) for _ in range(3)]:
                    upload.result(60)
        finally:
            stop.set()
        for sweep in sweeps:
            sweep.result(60)
    assert len(intake.rows()) == 10
    assert intake.sweep.run() == NOTHING
    assert intake.leftovers() == []
    intake.assert_sound()


def test_two_sweeps_at_once_count_each_leftover_once(intake: Intake) -> None:
    for number in range(40):
        (intake.incoming / f"{number:032x}.part").write_bytes(PHOTO[:number])
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: intake.sweep.run(), range(4)))
    assert intake.leftovers() == []
    assert sum(report.leftovers for report in reports) >= 40
