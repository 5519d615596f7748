"""Verification on both databases: every kind of damage is found, nothing else is reported, nothing is changed."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash
from sqlalchemy import text

from app.database import Database, WriteTransaction
from app.database.models import Media
from app.ingest import Upload
from app.media.hashing import media_id_of_bytes
from app.storage.verification import PAGE, Finding, Problem, Verification
from tests.ingest.intake import Intake, open_intake, picture, twin_of

PHOTO = picture("photo")


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    return open_intake(tmp_path / "media", database)


def silent(_done: int, _total: int) -> None:
    pass


def verify(
    intake: Intake, ids: Sequence[str] = (), *, record: bool = False, lock_wait_seconds: float = 5.0
) -> tuple[Verification, list[Finding]]:
    verification = Verification(intake.database, intake.storage, lock_wait_seconds=lock_wait_seconds)
    found = list(verification.media(ids, record=record, on_progress=silent))
    return verification, found + ([] if ids else list(verification.orphans(on_progress=silent)))


def problems(found: list[Finding]) -> list[tuple[str, str | None, str]]:
    return [(one.problem, one.media_id, Path(one.path).name) for one in found]


def expected(problem: Problem, content: bytes) -> tuple[str, str | None, str]:
    media_id = media_id_of_bytes(content)
    return problem, media_id, f"{media_id}.jpg"


def test_what_is_as_it_came_in_is_counted_and_not_listed(intake: Intake) -> None:
    for number in range(3):
        intake.send(picture(number))
    (intake.incoming / "under-way.part").write_bytes(b"half")
    verification, found = verify(intake)
    assert found == []
    assert verification.checked == 3
    assert verification.recorded == 0


def cut(path: Path) -> None:
    os.truncate(path, 7999)


def flip_a_bit(path: Path) -> None:
    """Change one bit outside the id's sample, without changing the size."""
    path.write_bytes(twin_of(path.read_bytes()))


def remove(path: Path) -> None:
    path.unlink()


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_link_there(path: Path) -> None:
    path.rename(path.parent / ".incoming" / "elsewhere")
    path.symlink_to(path.parent / ".incoming" / "elsewhere")


def put_a_pipe_there(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut, Problem.CHANGED),
        (flip_a_bit, Problem.CHANGED),
        (remove, Problem.MISSING),
        (put_a_folder_there, Problem.UNREADABLE),
        (put_a_link_there, Problem.UNREADABLE),
        (put_a_pipe_there, Problem.UNREADABLE),
    ],
)
def test_each_kind_of_damage_is_found_and_the_others_are_not_blamed(
    damage: Callable[[Path], None], problem: Problem, intake: Intake
) -> None:
    intake.send(PHOTO)
    intake.send(picture("sound"))
    damage(intake.final(PHOTO))
    verification, found = verify(intake)
    assert problems(found) == [expected(problem, PHOTO)]
    assert verification.checked == 1


def test_a_folder_that_is_gone_makes_its_media_missing(intake: Intake) -> None:
    intake.send(PHOTO)
    intake.images.rename(intake.folder / "elsewhere")
    verification = Verification(intake.database, intake.storage)
    assert problems(list(verification.media(on_progress=silent))) == [expected(Problem.MISSING, PHOTO)]


def forget_checksums(intake: Intake) -> None:
    """Remove the checksums, as in rows of the first schema."""
    with intake.database.write_transaction() as session:
        session.execute(text("UPDATE media SET checksum = NULL"))


def test_a_file_without_a_checksum_is_unchecked_until_it_is_given_one(intake: Intake) -> None:
    intake.send(PHOTO)
    forget_checksums(intake)
    assert problems(verify(intake)[1]) == [expected(Problem.UNCHECKED, PHOTO)]
    assert [row.checksum for row in intake.rows()] == [None]
    verification, found = verify(intake, record=True)
    assert found == []
    assert verification.recorded == 1
    assert [row.checksum for row in intake.rows()] == [xxhash.xxh3_128_hexdigest(PHOTO)]
    assert verify(intake)[0].checked == 1
    flip_a_bit(intake.final(PHOTO))
    assert problems(verify(intake, record=True)[1]) == [expected(Problem.CHANGED, PHOTO)]


def test_a_file_of_the_wrong_size_is_changed_whether_a_checksum_was_kept_or_not(intake: Intake) -> None:
    intake.send(PHOTO)
    forget_checksums(intake)
    cut(intake.final(PHOTO))
    assert problems(verify(intake, record=True)[1]) == [expected(Problem.CHANGED, PHOTO)]
    assert [row.checksum for row in intake.rows()] == [None]


def test_files_without_a_row_are_orphans_and_stay(intake: Intake) -> None:
    intake.send(PHOTO)
    left = intake.orphan(picture("left"))
    foreign = intake.images / "somebody-elses.txt"
    foreign.write_bytes(b"text")
    link = intake.images / "link"
    link.symlink_to(foreign)
    _, found = verify(intake)
    assert {(one.problem, one.path) for one in found} == {
        (Problem.ORPHANED, str(path)) for path in (left, foreign, link)
    }
    told = {Path(one.path).name: one.detail for one in found}
    assert "media recover" in told[left.name]
    assert "left alone" in told[foreign.name]
    assert left.exists()
    assert foreign.exists()


def test_a_file_that_is_being_recorded_is_no_orphan(intake: Intake) -> None:
    linked, go_on = threading.Event(), threading.Event()

    def pause(_connection: WriteTransaction, _media: Media) -> None:
        linked.set()
        assert go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        upload = pool.submit(intake.ingest.run, Upload("photo.jpg", "ada", [PHOTO]), pause)
        assert linked.wait(30)
        assert verify(intake, lock_wait_seconds=0.1)[1] == []
        verifying = pool.submit(verify, intake, lock_wait_seconds=30)
        threading.Timer(0.2, go_on.set).start()
        assert verifying.result(60)[1] == []
        assert not upload.result(60).duplicate
    verification, found = verify(intake)
    assert found == []
    assert verification.checked == 1


def test_no_transaction_is_open_while_files_are_read(intake: Intake) -> None:
    for number in range(3):
        intake.send(picture(number))
    forget_checksums(intake)
    verification = Verification(intake.database, intake.storage)
    for number, _finding in enumerate(verification.media(on_progress=silent)):
        intake.send(picture(10 + number))  # would wait forever if a write transaction were open
        with intake.database.reader.connect() as connection:
            if not intake.database.is_sqlite:
                idle = (
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
                )
                assert connection.execute(text(idle)).scalar_one() == 0


def test_more_media_than_a_page_are_each_verified_once(intake: Intake) -> None:
    columns = "id, name, path, media_type, media_status, user_id, size_bytes, created_at"
    with intake.database.write_transaction() as session:
        session.execute(
            text(f"INSERT INTO media ({columns}) VALUES (:id, 'n', :path, 'Image', 1, 'ada', 1, 0)"),
            [{"id": f"{number:016x}", "path": str(intake.images / f"{number}.jpg")} for number in range(2 * PAGE + 1)],
        )
    steps: list[tuple[int, int]] = []
    verification = Verification(intake.database, intake.storage)
    found = list(verification.media(on_progress=lambda done, total: steps.append((done, total))))
    assert [one.media_id for one in found] == [f"{number:016x}" for number in range(2 * PAGE + 1)]
    assert {one.problem for one in found} == {Problem.MISSING}
    assert steps == [(number, 2 * PAGE + 1) for number in range(1, 2 * PAGE + 2)]


def test_only_the_media_named_are_verified(intake: Intake) -> None:
    for content in (PHOTO, picture("other")):
        intake.send(content)
        cut(intake.final(content))
    wanted = media_id_of_bytes(PHOTO)
    verification, found = verify(intake, [wanted, "0" * 16, "nonsense\0"])
    assert problems(found) == [expected(Problem.CHANGED, PHOTO)]
    assert verification.unknown([wanted, "0" * 16, "nonsense\0"]) == ["0" * 16, "nonsense\0"]
    assert verify(intake, ["nonsense"])[1] == []
