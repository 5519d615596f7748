"""Markers tell whether a media folder and the database belong together, on both databases."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.database import Database, history
from app.errors import DetectionsError, SettingsError, StorageFailed, Unavailable
from app.ingest import Ingest, Upload
from app.outbox.queue import OutboxQueue
from app.storage import Storage, folder_marker
from app.storage.folder_marker import Marker, Reached
from app.storage.folder_ownership import FolderOwnership
from app.storage.marker_writer import MarkerWriter
from tests.ingest.intake import picture

MakeFolders = Callable[[], FolderOwnership]


@pytest.fixture
def folders(database: Database, tmp_path: Path) -> FolderOwnership:
    return made(database, tmp_path)


def made(database: Database, place: Path) -> FolderOwnership:
    """Return the folders as another process would create them, for the same database and paths."""
    return FolderOwnership(database, {"Video": place / "videos", "Image": place / "images"})


def upload(database: Database, folders: FolderOwnership, name: str = "one") -> str:
    images = next(path for path in folders.paths if path.name == "images")
    storage = Storage({"Video": images.parent / "videos", "Image": images}, folders.unusable_reason)
    content = picture(name)
    return Ingest(database, OutboxQueue(database.now), storage).run(Upload(f"{name}.jpg", "ada", [content])).media.id


def stored(database: Database) -> history.DatabaseIdentity:
    with database.read_transaction() as session:
        found = history.get(session)
    assert found is not None
    return found


def advance_counter(database: Database, folders: FolderOwnership) -> None:
    """Do what a process does some seconds after a commit, and at its end."""
    MarkerWriter(database, folders).work()


def test_the_first_start_marks_every_folder_once(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    expected = Marker(stored(database).instance, Reached(1, 0))
    assert [folder_marker.read(path) for path in folders.paths] == [expected, expected]
    before = [folder_marker.path_of(path).stat().st_mtime_ns for path in folders.paths]
    made(database, folders.paths[0].parent).open()
    assert [folder_marker.path_of(path).stat().st_mtime_ns for path in folders.paths] == before


def test_a_first_start_that_was_cut_short_is_begun_again(database: Database, folders: FolderOwnership) -> None:
    (folders.paths[0]).mkdir(parents=True)
    folder_marker.place(folders.paths[0], Marker("an instance that was rolled back", Reached(1, 0)))
    folders.open()
    assert [folders.unusable_reason(path) for path in folders.paths] == [None, None]


def test_a_folder_without_its_marker_stops_the_start_in_one_line(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    images = folders.paths[1]
    images.rename(images.with_name("elsewhere"))
    images.mkdir()  # like an empty mount point
    with pytest.raises(SettingsError, match=r"images has no marker.*mounted.*flask media accept-folders") as refused:
        made(database, images.parent).open()
    assert "\n" not in str(refused.value)
    assert list(images.iterdir()) == [], "nothing is made in a folder that is not the one"
    images.rmdir()
    with pytest.raises(SettingsError, match="has no marker"):
        made(database, images.parent).open()
    assert not images.exists()


def test_the_folder_of_another_database_stops_the_start_and_is_not_touched(
    database: Database, folders: FolderOwnership, tmp_path: Path
) -> None:
    folders.open()
    other = Marker("another-instance", Reached(3, 70))
    folder_marker.place(folders.paths[0], other)
    with pytest.raises(SettingsError, match=r"videos belongs to another database \(another-instance\)"):
        made(database, tmp_path).open()
    assert folder_marker.read(folders.paths[0]) == other


def test_an_empty_database_does_not_take_the_folders_of_another_one(database: Database, tmp_path: Path) -> None:
    """A wrong DATABASE_URL causes this."""
    (tmp_path / "images").mkdir()
    folder_marker.place(tmp_path / "images", Marker("another-instance", Reached(1, 70)))
    with pytest.raises(SettingsError, match="belongs to another database"):
        made(database, tmp_path).open()
    with database.read_transaction() as session:
        assert history.get(session) is None


def test_a_database_of_before_there_were_markers_knows_its_folder_by_its_newest_file(
    database: Database, folders: FolderOwnership, tmp_path: Path
) -> None:
    unmarked = {"Video": tmp_path / "videos", "Image": tmp_path / "images"}
    storage = Storage(unmarked)
    storage.prepare()
    Ingest(database, OutboxQueue(database.now), storage).run(Upload("a.jpg", "ada", [picture("a")]))
    (tmp_path / "images").rename(tmp_path / "away")
    with pytest.raises(SettingsError, match="images has no marker"):
        made(database, tmp_path).open()
    shutil.rmtree(tmp_path / "images", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "images")
    folders.open()
    assert folders.unusable_reason(tmp_path / "images") is None


def test_a_folder_that_vanishes_while_running_takes_nothing_in_until_it_is_back(
    database: Database, folders: FolderOwnership
) -> None:
    folders.open()
    upload(database, folders, "before")
    images = folders.paths[1]
    images.rename(images.with_name("unmounted"))
    for mount_point_is_left in (False, True):
        if mount_point_is_left:
            (images / ".incoming").mkdir(parents=True)
        with pytest.raises(Unavailable, match="images has no marker"):
            upload(database, folders, "meanwhile")
    assert [path for path in images.rglob("*") if path.is_file()] == [], "nothing is stored elsewhere"
    shutil.rmtree(images)
    images.with_name("unmounted").rename(images)
    upload(database, folders, "after")


def test_another_disk_in_its_place_takes_nothing_in(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    upload(database, folders, "before")
    folder_marker.place(folders.paths[1], Marker("another-instance", Reached(1, 1)))
    with pytest.raises(Unavailable, match="belongs to another database"):
        upload(database, folders, "meanwhile")


def test_a_marker_that_cannot_be_read_is_named_with_the_reason(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    for content in ("", "{}", '{"instance": "x", "epoch": "one", "counter": 1}'):
        folder_marker.path_of(folders.paths[1]).write_text(content)
        assert "marker" in str(folders.unusable_reason(folders.paths[1]))
        with pytest.raises(StorageFailed, match="is damaged"):
            made(database, folders.paths[1].parent).open()


def test_a_person_accepts_a_folder_that_was_replaced_on_purpose(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    shutil.rmtree(folders.paths[1])
    again = made(database, folders.paths[1].parent)
    assert [(one.folder.name, one.before is None, one.changed) for one in again.accept()] == [
        ("videos", False, False),
        ("images", True, True),
    ]
    made(database, folders.paths[1].parent).open()
    assert stored(database).reached.epoch == 1, "the other folder's marker tells that the database is as far as it was"


@pytest.mark.parametrize("before", ["nothing", "another database"])
def test_where_no_marker_tells_how_far_it_had_come_a_new_epoch_begins(
    database: Database, folders: FolderOwnership, before: str
) -> None:
    folders.open()
    for path in folders.paths:
        if before == "nothing":
            shutil.rmtree(path)
        else:
            folder_marker.place(path, Marker("another-instance", Reached(7, 90)))
    folders.accept()
    assert stored(database).reached.epoch == (2 if before == "nothing" else 8)


def test_a_new_database_that_replaces_a_lost_one_goes_on_in_a_later_epoch(database: Database, tmp_path: Path) -> None:
    for name in ("videos", "images"):
        (tmp_path / name).mkdir()
        folder_marker.place(tmp_path / name, Marker("the lost one", Reached(2, 500)))
    made(database, tmp_path).accept()
    made(database, tmp_path).open()
    assert stored(database).reached > Reached(3, 0)


def test_the_markers_follow_the_database_and_the_highest_of_several_writers_stays(
    database: Database, folders: FolderOwnership
) -> None:
    folders.open()
    ours = stored(database).instance
    for _ in range(3):
        advance_counter(database, folders)
    assert [folder_marker.read(path) for path in folders.paths] == [Marker(ours, Reached(1, 3))] * 2
    assert folder_marker.advance(folders.paths[0], Marker(ours, Reached(1, 2)))
    assert folder_marker.read(folders.paths[0]) == Marker(ours, Reached(1, 3))
    assert not folder_marker.advance(folders.paths[0], Marker("another-instance", Reached(9, 9)))


def test_a_process_counts_on_only_where_it_has_committed_messages(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    keeper = MarkerWriter(database, folders)
    keeper.work()
    keeper.work()
    assert stored(database).reached.counter == 1
    upload(database, folders)
    keeper.work()
    assert stored(database).reached.counter == 2


def test_counting_on_makes_no_marker_in_a_folder_that_has_none(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    images = folders.paths[1]
    images.rename(images.with_name("unmounted"))
    images.mkdir()
    advance_counter(database, folders)
    assert list(images.iterdir()) == []


def test_a_restored_database_goes_on_in_a_new_epoch_and_says_so(
    database: Database, folders: FolderOwnership, capsys: pytest.CaptureFixture[str]
) -> None:
    folders.open()
    advance_counter(database, folders)
    with database.write_transaction() as session:
        session.connection().exec_driver_sql("UPDATE database_instance SET counter = 0")  # as in the copy
    made(database, folders.paths[0].parent).open()
    found = stored(database)
    assert found.reached == Reached(2, 2)
    assert found.restored_at is not None
    assert [folder_marker.read(path) for path in folders.paths] == [found.marker] * 2
    [line] = [one for one in "".join(capsys.readouterr()).splitlines() if "database_restored" in one]
    for command in ("flask outbox verify --remote", "flask outbox resend --missing", "flask media verify"):
        assert command in line
    assert not made(database, folders.paths[0].parent).detect_restore(), "once is enough"


def test_a_database_restored_from_before_an_epoch_does_not_begin_that_epoch_again(
    database: Database, folders: FolderOwnership
) -> None:
    folders.open()
    with database.write_transaction() as session:
        begun = history.begin_epoch(session, database.now, [])
    folders.write_markers(begun)
    with database.write_transaction() as session:
        session.connection().exec_driver_sql("UPDATE database_instance SET epoch = 1, counter = 0")
    made(database, folders.paths[0].parent).open()
    assert stored(database).reached.epoch == 3


def test_a_copy_with_nothing_after_it_was_not_restored_in_vain(database: Database, folders: FolderOwnership) -> None:
    folders.open()
    advance_counter(database, folders)
    made(database, folders.paths[0].parent).open()
    assert stored(database).reached == Reached(1, 1)
    assert stored(database).restored_at is None


def test_while_another_process_keeps_a_marker_locked_the_others_are_still_written(
    database: Database, folders: FolderOwnership, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.open()
    monkeypatch.setattr(folder_marker, "LOCK_SECONDS", 0.1)
    with folder_marker._locked(folders.paths[0]):
        advance_counter(database, folders)
        with pytest.raises(DetectionsError, match="locked"):
            folder_marker.place(folders.paths[0], stored(database).marker)
    counters = [json.loads(folder_marker.path_of(path).read_text())["counter"] for path in folders.paths]
    assert counters == [0, 1]
