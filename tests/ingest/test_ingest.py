"""Ingest on both databases: new, known, colliding, orphaned and contended files, and failing commits."""

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from app.database import Database, WriteTransaction
from app.database.models import Media, MediaStatus
from app.errors import MalformedUpload, MediaIdCollision, StorageFailed, StorageFull, Unavailable, UnsupportedMedia
from app.ingest import Ingest, IngestResult, Upload
from app.media.hashing import media_id_of_bytes
from app.outbox.queue import OutboxQueue
from app.storage import lock_orphan
from tests.ingest.intake import Intake, is_temporary, open_intake, picture, twin_of

PHOTO = picture("photo")


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    return open_intake(tmp_path / "media", database)


def at_once(calls: list[Callable[[], IngestResult]]) -> list[IngestResult | Exception]:
    """Return the results of the calls, all started at the same instant."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], IngestResult]) -> IngestResult | Exception:
        barrier.wait(60)
        try:
            return call()
        except (MediaIdCollision, Unavailable) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_a_new_file_gets_its_place_its_row_and_one_create(intake: Intake) -> None:
    receipt = intake.send(PHOTO, "Holiday.JPG", "ada")
    media_id = media_id_of_bytes(PHOTO)
    [row] = intake.rows()
    assert not receipt.duplicate
    assert row.id == media_id
    assert row.name == "Holiday.JPG"
    assert row.user_id == "ada"
    assert row.media_type == "Image"
    assert row.media_status == MediaStatus.NEW
    assert row.size_bytes == len(PHOTO)
    assert row.path == str(intake.images / f"{media_id}.jpg")
    assert row.checksum == xxhash.xxh3_128_hexdigest(PHOTO)
    assert Path(row.path).read_bytes() == PHOTO
    assert intake.creates() == 1
    assert intake.leftovers() == []


def test_the_same_bytes_again_are_a_duplicate_of_the_first_owner(intake: Intake) -> None:
    first = intake.send(PHOTO, "first.jpg", "ada")
    again = intake.send(PHOTO, "again.jpg", "bob")
    assert again.duplicate
    assert again.media.id == first.media.id
    assert again.media.name == "first.jpg"
    assert again.media.user_id == "ada"
    assert len(intake.stored()) == 1
    assert intake.creates() == 1
    assert intake.leftovers() == []


def forget_checksum(intake: Intake) -> None:
    """Remove the checksum, as in a row of the first schema."""
    with intake.database.write_transaction() as session:
        session.execute(text("UPDATE media SET checksum = NULL"))


def test_a_duplicate_of_a_row_without_a_checksum_brings_it(intake: Intake) -> None:
    intake.send(PHOTO)
    forget_checksum(intake)
    with pytest.raises(MediaIdCollision):
        intake.send(twin_of(PHOTO))
    assert [row.checksum for row in intake.rows()] == [None]
    assert intake.send(PHOTO).media.checksum == xxhash.xxh3_128_hexdigest(PHOTO)
    assert [row.checksum for row in intake.rows()] == [xxhash.xxh3_128_hexdigest(PHOTO)]


def test_a_duplicate_is_answered_though_the_missing_checksum_cannot_be_written(
    tmp_path: Path, database_url: str
) -> None:
    holder, waiter = Database(database_url), Database(database_url, busy_seconds=0.3)
    try:
        intake = open_intake(tmp_path / "media", waiter)
        intake.send(PHOTO)
        forget_checksum(intake)
        with holder.write_transaction() as session:
            session.execute(text("SELECT 1" if holder.is_sqlite else "LOCK TABLE media IN SHARE ROW EXCLUSIVE MODE"))
            assert intake.send(PHOTO).duplicate
        assert [row.checksum for row in intake.rows()] == [None]
    finally:
        holder.close()
        waiter.close()


def test_the_same_bytes_under_another_extension_of_their_kind_are_a_duplicate(intake: Intake) -> None:
    intake.send(PHOTO, "photo.jpg")
    again = intake.send(PHOTO, "photo.jpeg")
    assert again.duplicate
    assert intake.stored() == {intake.final(PHOTO, "jpg").name}


def test_other_bytes_of_the_same_id_are_refused_and_the_first_stay(intake: Intake) -> None:
    intake.send(PHOTO)
    before = intake.final(PHOTO).stat()
    for name in ("photo.jpg", "photo.jpeg"):
        with pytest.raises(MediaIdCollision):
            intake.send(twin_of(PHOTO), name)
    after = intake.final(PHOTO).stat()
    assert intake.final(PHOTO).read_bytes() == PHOTO
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns == before.st_mtime_ns
    assert len(intake.stored()) == 1
    assert intake.creates() == 1
    assert intake.leftovers() == []


def test_the_file_that_the_row_names_is_the_one_compared(intake: Intake) -> None:
    intake.send(PHOTO, "photo.jpeg")
    intake.orphan(twin_of(PHOTO), "jpg", proof=False)
    assert intake.send(PHOTO, "photo.jpg").duplicate
    with pytest.raises(MediaIdCollision):
        intake.send(twin_of(PHOTO), "photo.jpg")


def test_sixty_four_identical_uploads_at_once_make_one_row_one_file_one_create(intake: Intake) -> None:
    names = [f"{number}.{'jpg' if number % 2 else 'jpeg'}" for number in range(64)]
    outcomes = at_once([lambda name=name: intake.send(PHOTO, name) for name in names])  # type: ignore[misc]
    receipts = [outcome for outcome in outcomes if isinstance(outcome, IngestResult)]
    assert len(receipts) == 64
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert len(intake.rows()) == 1
    assert len(intake.stored()) == 1
    assert intake.creates() == 1
    assert intake.leftovers() == []
    intake.assert_sound()


def test_of_two_colliding_files_at_once_one_is_stored_and_the_other_refused(intake: Intake) -> None:
    for number in range(100):
        content = picture(number)
        outcomes = at_once([lambda: intake.send(content), lambda: intake.send(twin_of(content))])  # noqa: B023
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["IngestResult", "MediaIdCollision"]
        winner = content if isinstance(outcomes[0], IngestResult) else twin_of(content)
        assert intake.final(content).read_bytes() == winner
    assert len(intake.rows()) == 100
    assert len(intake.stored()) == 100
    assert intake.creates() == 100
    assert intake.leftovers() == []
    intake.assert_sound()


@pytest.mark.parametrize("proof", [True, False])
def test_an_orphan_with_the_same_bytes_is_adopted_whoever_made_it(intake: Intake, proof: bool) -> None:
    orphan = intake.orphan(PHOTO, proof=proof)
    inode = orphan.stat().st_ino
    receipt = intake.send(PHOTO)
    assert not receipt.duplicate
    assert orphan.stat().st_ino == inode
    assert receipt.media.checksum == xxhash.xxh3_128_hexdigest(PHOTO)
    assert len(intake.rows()) == 1
    assert intake.creates() == 1
    assert intake.leftovers() == []
    intake.assert_sound()


def test_an_orphan_with_other_bytes_is_replaced_where_it_is_proven_to_be_ours(intake: Intake) -> None:
    orphan = intake.orphan(twin_of(PHOTO))
    receipt = intake.send(PHOTO)
    assert not receipt.duplicate
    assert orphan.read_bytes() == PHOTO
    assert len(intake.rows()) == 1
    assert intake.creates() == 1
    assert intake.leftovers() == []


def test_a_foreign_file_with_other_bytes_is_never_touched(intake: Intake) -> None:
    foreign = intake.orphan(twin_of(PHOTO), proof=False)
    with pytest.raises(MediaIdCollision):
        intake.send(PHOTO)
    assert foreign.read_bytes() == twin_of(PHOTO)
    assert intake.rows() == []
    assert intake.leftovers() == []


def test_a_file_whose_lock_is_held_makes_the_upload_wait_and_then_come_back_later(
    tmp_path: Path, database: Database
) -> None:
    intake = open_intake(tmp_path / "media", database, lock_wait_seconds=0.3)
    orphan = intake.orphan(PHOTO)
    began = time.monotonic()
    with lock_orphan(orphan, wait=0), pytest.raises(Unavailable):
        intake.send(PHOTO)
    assert 0.3 <= time.monotonic() - began < 20
    assert intake.rows() == []
    assert len(intake.leftovers()) == 1
    assert not intake.send(PHOTO).duplicate


def test_an_upload_waits_for_the_one_that_is_about_to_commit(intake: Intake) -> None:
    linked, go_on = threading.Event(), threading.Event()

    def pause(_connection: WriteTransaction, _media: Media) -> None:
        linked.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(intake.ingest.run, Upload("first.jpg", "ada", [PHOTO]), pause)
        assert linked.wait(30)
        second = pool.submit(intake.send, PHOTO)
        threading.Timer(0.2, go_on.set).start()
        assert not first.result(60).duplicate
        assert second.result(60).duplicate
    assert len(intake.rows()) == 1
    assert len(intake.stored()) == 1
    assert intake.leftovers() == []


def test_a_new_media_is_told_of_with_its_whole_file_before_it_is_recorded_and_a_known_one_never(intake: Intake) -> None:
    told: list[tuple[str, bytes, int]] = []

    def note(media: Media, file: Path) -> None:
        told.append((media.id, file.read_bytes(), len(intake.rows())))

    for name in ("photo.jpg", "again.jpg"):
        intake.ingest.run(Upload(name, "ada", [PHOTO[:5000], PHOTO[5000:]]), on_received=note)
    assert told == [(media_id_of_bytes(PHOTO), PHOTO, 0)]
    with pytest.raises(MediaIdCollision):
        intake.ingest.run(Upload("twin.jpg", "ada", [twin_of(PHOTO)]), on_received=note)
    assert len(told) == 1


def test_what_is_added_to_the_transaction_is_committed_with_it_or_not_at_all(intake: Intake) -> None:
    def fail(connection: WriteTransaction, media: Media) -> NoReturn:
        assert connection.scalar(select(Media.id).where(Media.id == media.id)) is not None
        raise RuntimeError("the addition failed")

    with pytest.raises(RuntimeError, match="the addition failed"):
        intake.ingest.run(Upload("photo.jpg", "ada", [PHOTO]), fail)
    assert intake.rows() == []
    assert intake.stored() == set()
    assert intake.leftovers() == []
    assert not intake.send(PHOTO).duplicate


def test_replacing_an_orphan_that_fails_before_the_commit_leaves_the_orphan(intake: Intake) -> None:
    def fail(_connection: WriteTransaction, _media: Media) -> NoReturn:
        raise RuntimeError("the addition failed")

    orphan = intake.orphan(twin_of(PHOTO))
    with pytest.raises(RuntimeError):
        intake.ingest.run(Upload("photo.jpg", "ada", [PHOTO]), fail)
    assert orphan.read_bytes() == twin_of(PHOTO)
    assert intake.rows() == []
    assert len(intake.leftovers()) == 1


def test_a_conflict_that_has_nothing_to_do_with_the_id_is_told_at_once(intake: Intake) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match="user_present"):
        intake.send(PHOTO, user="")
    assert time.monotonic() - began < 4
    assert intake.rows() == []
    assert intake.stored() == set()
    assert intake.leftovers() == []


def test_a_database_that_is_busy_for_too_long_leaves_nothing_behind(tmp_path: Path, database_url: str) -> None:
    holder, waiter = Database(database_url), Database(database_url, busy_seconds=0.3)
    try:
        intake = open_intake(tmp_path / "media", waiter)
        with holder.write_transaction() as session:
            session.execute(text("SELECT 1" if holder.is_sqlite else "LOCK TABLE media IN SHARE ROW EXCLUSIVE MODE"))
            with pytest.raises(Unavailable):
                intake.send(PHOTO)
        assert intake.rows() == []
        assert intake.stored() == set()
        assert intake.leftovers() == []
        assert not intake.send(PHOTO).duplicate
    finally:
        holder.close()
        waiter.close()


def test_a_database_without_room_leaves_nothing_behind(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    try:
        intake = open_intake(tmp_path / "media", database)

        def use_up(transaction: WriteTransaction, _media: Media) -> None:
            connection = transaction.connection()
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            connection.execute(text("CREATE TABLE filler AS SELECT randomblob(1000000) AS bytes"))

        with pytest.raises(StorageFull):
            intake.ingest.run(Upload("photo.jpg", "ada", [PHOTO]), use_up)
        assert intake.rows() == []
        assert intake.stored() == set()
        assert intake.leftovers() == []
    finally:
        database.close()


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("photo.exe", PHOTO, UnsupportedMedia),
        ("photo", PHOTO, UnsupportedMedia),
        ("photo.png", PHOTO, UnsupportedMedia),
        ("photo.jpg", b"", UnsupportedMedia),
        ("photo.jpg", b"\xff", UnsupportedMedia),
        ("clip.mp4", b"ffconcat version 1.0\nfile secret\n" * 200, UnsupportedMedia),
        ("../..", PHOTO, MalformedUpload),
    ],
)
def test_what_is_refused_for_its_name_or_first_bytes_leaves_nothing(
    name: str, content: bytes, refusal: type[Exception], intake: Intake
) -> None:
    with pytest.raises(refusal):
        intake.send(content, name)
    assert intake.rows() == []
    assert intake.stored() == set()
    assert intake.leftovers() == []


def test_wrong_first_bytes_are_refused_before_the_rest_is_read(intake: Intake) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"MZ" + bytes(4094)
        pytest.fail("the rest was read")

    with pytest.raises(UnsupportedMedia):
        intake.send(chunks())


def test_a_client_that_stops_half_way_leaves_nothing(intake: Intake) -> None:
    def chunks() -> Iterator[bytes]:
        yield PHOTO[:5000]
        raise MalformedUpload("cut off")

    with pytest.raises(MalformedUpload, match="cut off"):
        intake.send(chunks())
    assert intake.rows() == []
    assert intake.stored() == set()
    assert intake.leftovers() == []


def test_no_transaction_is_open_while_bytes_arrive(intake: Intake) -> None:
    def chunks() -> Iterator[bytes]:
        yield PHOTO[:5000]
        intake.send(picture("another"))  # would wait forever on SQLite if a transaction were open
        yield PHOTO[5000:]

    intake.send(chunks())
    assert len(intake.rows()) == 2


def test_bytes_go_straight_to_a_file_beside_their_destination(intake: Intake) -> None:
    seen: list[int] = []

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(PHOTO), 1000):
            [path] = intake.leftovers()
            assert is_temporary(path.name)
            seen.append(path.stat().st_size)
            yield PHOTO[start : start + 1000]

    intake.send(chunks())
    assert seen == list(range(0, len(PHOTO), 1000))


@pytest.mark.long
def test_a_large_upload_and_its_comparison_take_little_memory(intake: Intake) -> None:
    chunk, count = picture("chunk", 1 << 16), 1024

    def chunks() -> Iterator[bytes]:
        for _ in range(count):
            yield chunk

    intake.send(PHOTO)
    tracemalloc.start()
    try:
        assert not intake.send(chunks()).duplicate
        assert intake.send(chunks()).duplicate
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (8 << 20) < len(chunk) * count


def test_a_lost_file_that_is_sent_again_is_put_back(intake: Intake) -> None:
    first = intake.send(PHOTO).media
    final = intake.final(PHOTO)
    final.unlink()
    receipt = intake.send(PHOTO, name="again.jpeg", user="bob")
    assert receipt.duplicate
    assert receipt.media.name == first.name
    assert receipt.media.user_id == first.user_id
    assert final.read_bytes() == PHOTO
    assert intake.leftovers() == []
    intake.assert_sound()


def test_other_bytes_do_not_take_the_place_of_a_lost_file(intake: Intake) -> None:
    intake.send(PHOTO)
    intake.final(PHOTO).unlink()
    with pytest.raises(MediaIdCollision):
        intake.send(twin_of(PHOTO))
    assert intake.stored() == set()
    assert intake.leftovers() == []


def test_a_lost_file_of_which_no_checksum_was_kept_is_not_put_back(intake: Intake) -> None:
    media_id = intake.send(PHOTO).media.id
    with intake.database.write_transaction() as session:
        session.execute(update(Media).where(Media.id == media_id).values(checksum=None))
    intake.final(PHOTO).unlink()
    with pytest.raises(StorageFailed):
        intake.send(PHOTO)
    assert intake.stored() == set()


def test_the_patience_for_others_is_measured_on_the_clock_handed_in(tmp_path: Path, database: Database) -> None:
    intake = open_intake(tmp_path / "media", database)
    ticks = iter(range(0, 100_000, 1000))
    ingest = Ingest(
        database, OutboxQueue(database.now), intake.storage, lock_wait_seconds=30, monotonic=lambda: float(next(ticks))
    )
    began = time.monotonic()
    with lock_orphan(intake.orphan(PHOTO), wait=0), pytest.raises(Unavailable):
        ingest.run(Upload("photo.jpg", "ada", [PHOTO]))
    assert time.monotonic() - began < 20


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes=st.lists(st.integers(0, 4000), min_size=1, max_size=6), seed=st.integers(0, 1 << 30))
def test_however_the_bytes_are_cut_the_file_is_what_was_sent(
    sizes: list[int], seed: int, sqlite_intake: Intake
) -> None:
    content = picture(seed, sum(sizes) + 3)
    ends = [3]
    for size in sizes:
        ends.append(ends[-1] + size)
    pieces = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    receipt = sqlite_intake.send(pieces)
    assert Path(receipt.media.path).read_bytes() == content
    assert receipt.media.checksum == xxhash.xxh3_128_hexdigest(content)
    assert receipt.media.id == media_id_of_bytes(content)


@pytest.fixture
def sqlite_intake(tmp_path: Path, sqlite_url: str) -> Iterator[Intake]:
    database = Database(sqlite_url)
    yield open_intake(tmp_path / "media", database)
    database.close()


def test_links_and_folders_in_the_place_of_a_file_are_refused(sqlite_intake: Intake, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(PHOTO)
    sqlite_intake.final(PHOTO).symlink_to(secret)
    sqlite_intake.final(picture("other")).mkdir()
    for content in (PHOTO, picture("other")):
        with pytest.raises((StorageFailed, MediaIdCollision)):
            sqlite_intake.send(content)
    assert sqlite_intake.rows() == []
    assert sqlite_intake.leftovers() == []
    assert sqlite_intake.final(PHOTO).readlink() == secret
