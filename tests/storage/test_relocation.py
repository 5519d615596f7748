"""Relocation of rows after a media folder was moved, on both databases."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from app.database import Database
from app.database.models import Media, OutboxMessage
from app.errors import SettingsError
from app.storage.relocation import Relocation, check_rows
from tests.ingest.intake import Intake, open_intake, picture


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    """Three stored pictures."""
    intake = open_intake(tmp_path / "media", database)
    for number in range(3):
        intake.send(picture(number))
    return intake


def folders(intake: Intake, images: Path) -> dict[str, Path]:
    return {"Image": images, "Video": intake.folder / "videos"}


def paths(intake: Intake) -> set[str]:
    return {row.path for row in intake.rows()}


def test_rows_follow_the_folder_that_was_moved_and_messages_keep_the_path_of_before(
    intake: Intake, tmp_path: Path
) -> None:
    old, new = intake.images, tmp_path / "other disk"
    old.rename(new)
    with pytest.raises(SettingsError, match=f"3 stored files lie outside.*flask media relocate {old} NEW"):
        check_rows(intake.database, folders(intake, new))
    relocation = Relocation(intake.database, folders(intake, new))
    assert list(relocation.run(old, new)) == []
    assert relocation.moved == 3
    assert paths(intake) == {str(path) for path in new.iterdir() if path.is_file()}
    check_rows(intake.database, folders(intake, new))
    with intake.database.read_transaction() as session:
        told = {Path(message.payload["path"]).parent for message in session.scalars(select(OutboxMessage))}
    assert told == {old}


def test_a_row_whose_file_is_not_there_is_left_until_the_next_call(intake: Intake, tmp_path: Path) -> None:
    old, new = intake.images, tmp_path / "other disk"
    shutil.copytree(old, new)
    lost = intake.rows()[0]
    kept = (new / Path(lost.path).name).rename(tmp_path / "kept")
    changed = Path(intake.rows()[1].path)
    with (new / changed.name).open("ab") as file:
        file.write(b"more")
    [first, second] = Relocation(intake.database, folders(intake, new)).run(old, new)
    assert first.media_id == lost.id
    assert first.path == lost.path
    assert "No such file" in first.reason
    assert "has 8004 bytes" in second.reason
    assert str(lost.path) in paths(intake)
    kept.rename(new / Path(lost.path).name)
    shutil.copy(changed, new / changed.name)
    again = Relocation(intake.database, folders(intake, new))
    assert list(again.run(old, new)) == []
    assert again.moved == 2


def test_a_folder_that_begins_alike_is_another_one(intake: Intake, tmp_path: Path) -> None:
    new = Path(f"{intake.images}-new")
    intake.images.rename(new)
    assert list(Relocation(intake.database, folders(intake, new)).run(intake.images, new)) == []
    with pytest.raises(SettingsError):
        check_rows(intake.database, folders(intake, intake.images))
    moved_back = Relocation(intake.database, folders(intake, intake.images))
    assert list(moved_back.run(tmp_path, intake.images)) == []
    assert moved_back.moved == 0


def test_rows_are_moved_only_to_the_folder_that_is_set_for_their_type(intake: Intake, tmp_path: Path) -> None:
    relocation = Relocation(intake.database, folders(intake, tmp_path / "images"))
    for new in (tmp_path / "elsewhere", intake.images):
        with pytest.raises(SettingsError, match="NEW must be"):
            list(relocation.run(intake.images, new))
    assert list(relocation.run(intake.images, intake.folder / "videos")) == []
    assert relocation.moved == 0
    with pytest.raises(SettingsError, match="same folder"):
        list(relocation.run(tmp_path / "images", tmp_path / "images"))


def test_a_path_that_another_media_has_is_left(intake: Intake, tmp_path: Path) -> None:
    new = tmp_path / "other disk"
    shutil.copytree(intake.images, new)
    first, second = intake.rows()[:2]
    with intake.database.write_transaction() as session:
        session.get_one(Media, first.id).path = str(new / Path(second.path).name)
    relocation = Relocation(intake.database, folders(intake, new))
    [left] = relocation.run(intake.images, new)
    assert left.media_id == second.id
    assert relocation.moved == 1
