"""Adoption of a media item that only the annotations service knows, only if its file is here."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.database import Database
from app.database.models import OutboxMessage
from app.errors import MediaNotFound, Unavailable
from app.ingest.adoption import Adoption
from app.media.hashing import media_id_of_bytes
from app.storage import lock_orphan
from tests.ingest.intake import Intake, open_intake, picture, twin_of

PHOTO = picture("photo")
MEDIA_ID = media_id_of_bytes(PHOTO)
UNKNOWN = "0123456789abcdef"

Adopt = Callable[[dict[str, Any] | None], Adoption]


@pytest.fixture
def intake(tmp_path: Path, database: Database) -> Intake:
    intake = open_intake(tmp_path / "media", database)
    intake.orphan(PHOTO, proof=False)
    return intake


@pytest.fixture
def adopt(intake: Intake) -> Adopt:
    """Return an adoption to which the annotations service returns that record."""
    return lambda record: Adoption(intake.database, intake.storage, lambda _id, _user: record, lock_wait_seconds=0.2)


def record_of(intake: Intake, **changes: Any) -> dict[str, Any]:
    return {
        "id": MEDIA_ID,
        "name": "photo.jpg",
        "path": str(intake.final(PHOTO)),
        "mediaType": "Image",
        "mediaStatus": 3,
        "userId": "bob",
    } | changes


def messages(intake: Intake) -> int:
    with intake.database.read_transaction() as session:
        return session.scalars(select(func.count()).select_from(OutboxMessage)).one()


def test_a_media_whose_file_lies_here_is_recorded_without_a_create(intake: Intake, adopt: Adopt) -> None:
    adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")
    [row] = intake.rows()
    assert row.id == MEDIA_ID
    assert row.name == "photo.jpg"
    assert row.user_id == "bob"
    assert row.media_status == 3
    assert row.path == str(intake.final(PHOTO))
    assert row.size_bytes == len(PHOTO)
    assert row.media_type == "Image"
    assert row.created_at > 1.7e9
    assert messages(intake) == 0


def test_a_media_that_is_recorded_already_is_not_asked_for(intake: Intake) -> None:
    intake.send(PHOTO)

    def look(_media_id: str, _user_id: str) -> None:
        pytest.fail("it was asked for")

    Adoption(intake.database, intake.storage, look).ensure_known(MEDIA_ID, "ada")


def test_the_annotations_service_is_asked_on_behalf_of_the_user(intake: Intake) -> None:
    asked: list[tuple[str, str]] = []

    def look(media_id: str, user_id: str) -> dict[str, Any]:
        asked.append((media_id, user_id))
        return record_of(intake)

    Adoption(intake.database, intake.storage, look).ensure_known(MEDIA_ID, "ada")
    assert asked == [(MEDIA_ID, "ada")]


def test_a_media_that_nobody_knows_is_not_found(intake: Intake, adopt: Adopt) -> None:
    with pytest.raises(MediaNotFound):
        adopt(None).ensure_known(UNKNOWN, "ada")
    with pytest.raises(MediaNotFound):
        Adoption(intake.database, intake.storage, None).ensure_known(UNKNOWN, "ada")


@pytest.mark.parametrize("strange", ["", "\0", "V" + UNKNOWN, UNKNOWN.upper(), "../../etc/passwd", "0" * 5000])
def test_what_is_no_id_is_not_found_without_asking_anyone(strange: str, intake: Intake) -> None:
    def look(_media_id: str, _user_id: str) -> None:
        pytest.fail("it was asked for")

    with pytest.raises(MediaNotFound):
        Adoption(intake.database, intake.storage, look).ensure_known(strange, "ada")


def test_a_service_that_cannot_be_asked_makes_the_client_come_back(intake: Intake) -> None:
    def look(_media_id: str, _user_id: str) -> None:
        raise Unavailable("it does not answer")

    with pytest.raises(Unavailable, match="does not answer"):
        Adoption(intake.database, intake.storage, look).ensure_known(UNKNOWN, "ada")


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/etc/passwd"},
        {"path": "missing.jpg"},
        {"path": "{images}/missing.jpg"},
        {"path": "{images}/.incoming/part.jpg"},
        {"path": "{images}/../images/{name}"},
        {"path": "{images}/link.jpg"},
        {"path": "{images}/other.jpg"},
        {"path": "{images}/photo.exe"},
        {"path": "{images}/" + "x" * 5000 + ".jpg"},
        {"path": "{images}/\0.jpg"},
        {"path": None},
        {"path": 7},
        {"mediaStatus": "new"},
        {"mediaStatus": None},
        {"mediaStatus": float("inf")},
        {"userId": ""},
        {"userId": None},
        {"userId": "x" * 256},
        {"userId": "a\0b"},
        {"name": ""},
        {"name": "\0"},
    ],
    ids=repr,
)
def test_a_record_that_does_not_fit_a_file_here_is_not_found(
    changes: dict[str, Any], intake: Intake, adopt: Adopt
) -> None:
    (intake.images / "other.jpg").write_bytes(picture("other"))
    (intake.images / "photo.exe").write_bytes(PHOTO)
    (intake.incoming / "part.jpg").write_bytes(PHOTO)
    (intake.images / "link.jpg").symlink_to(intake.final(PHOTO))
    if isinstance(changes.get("path"), str):
        changes = {"path": changes["path"].format(images=intake.images, name=intake.final(PHOTO).name)}
    with pytest.raises(MediaNotFound):
        adopt(record_of(intake, **changes)).ensure_known(MEDIA_ID, "ada")
    assert intake.rows() == []


@pytest.mark.parametrize("missing", ["name", "path", "mediaStatus", "userId"])
def test_a_record_that_lacks_a_field_is_not_found(missing: str, intake: Intake, adopt: Adopt) -> None:
    record = record_of(intake)
    del record[missing]
    with pytest.raises(MediaNotFound):
        adopt(record).ensure_known(MEDIA_ID, "ada")


def test_the_path_that_is_asked_for_counts_and_not_the_content_alone(intake: Intake, adopt: Adopt) -> None:
    intake.final(PHOTO).write_bytes(twin_of(PHOTO)[:-1])
    with pytest.raises(MediaNotFound):
        adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")


@pytest.mark.parametrize(("theirs", "ours"), [(1, 1), (2, 6), (3, 3), (4, 3), (5, 3), (6, 6)])
def test_a_status_that_no_run_of_ours_would_end_is_not_taken_over(
    theirs: int, ours: int, intake: Intake, adopt: Adopt
) -> None:
    adopt(record_of(intake, mediaStatus=theirs)).ensure_known(MEDIA_ID, "ada")
    assert [row.media_status for row in intake.rows()] == [ours]


def test_two_requests_at_once_adopt_it_once(intake: Intake) -> None:
    record = record_of(intake)
    adoption = Adoption(intake.database, intake.storage, lambda _id, _user: record)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(adoption.ensure_known, MEDIA_ID, "ada") for _ in range(8)]:
            done.result(60)
    assert len(intake.rows()) == 1


def test_the_file_is_locked_against_a_sweep_between_the_check_and_the_row(intake: Intake, adopt: Adopt) -> None:
    with lock_orphan(intake.final(PHOTO), wait=0), pytest.raises(Unavailable):
        adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")
    assert intake.rows() == []


def test_an_orphan_that_was_adopted_survives_the_next_sweep(intake: Intake, adopt: Adopt) -> None:
    intake.final(PHOTO).unlink()
    intake.orphan(PHOTO)
    adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")
    intake.sweep.run()
    assert intake.final(PHOTO).read_bytes() == PHOTO
    assert intake.leftovers() == []


def test_a_path_that_another_media_has_is_refused(intake: Intake, adopt: Adopt) -> None:
    adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")
    other = picture("other")
    intake.final(PHOTO).write_bytes(other)
    with pytest.raises(MediaNotFound):
        adopt(record_of(intake)).ensure_known(media_id_of_bytes(other), "ada")
    assert [row.id for row in intake.rows()] == [MEDIA_ID]


@pytest.mark.parametrize(
    ("name", "content"),
    [("photo.jpg", b"GIF89a" + bytes(4000)), ("clip.mp4", PHOTO), ("photo.exe", PHOTO), ("photo", PHOTO)],
)
def test_a_file_that_no_upload_would_bring_in_is_not_adopted(
    name: str, content: bytes, intake: Intake, adopt: Adopt
) -> None:
    path = intake.final(PHOTO).with_name(name)
    path.write_bytes(content)
    media_id = media_id_of_bytes(content)
    with pytest.raises(MediaNotFound):
        adopt(record_of(intake, id=media_id, path=str(path))).ensure_known(media_id, "ada")
    assert intake.rows() == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_adopted_nor_waited_for(kind: str, intake: Intake, adopt: Adopt) -> None:
    path = intake.final(PHOTO)
    if kind == "link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    else:
        path.unlink()
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(MediaNotFound):
        adopt(record_of(intake)).ensure_known(MEDIA_ID, "ada")
    assert intake.rows() == []
