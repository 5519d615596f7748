"""The main job, over real HTTP and real gunicorn: uploads become files, records and statuses that arrive."""

from app.media.hashing import media_id_of_bytes
from tests.paths import PHOTOS
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.service import Service

ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"


def statuses(annotations: ReferenceService, media_id: str) -> list[int]:
    return [
        entry["body"]["mediaStatus"] for entry in annotations.log() if entry["applied"] and entry["mediaId"] == media_id
    ]


def test_an_uploaded_photo_is_stored_recorded_detected_and_reported(
    service: Service, annotations: ReferenceService
) -> None:
    answer = service.upload("/detect", ASTRONAUT)
    assert answer.status_code == 201, answer.text
    media = answer.json()["media"]
    assert media["id"] == media_id_of_bytes(ASTRONAUT.read_bytes())
    assert (service.images / f"{media['id']}.jpg").read_bytes() == ASTRONAUT.read_bytes()
    [frame] = answer.json()["annotations"]
    assert [found["label"] for found in frame["detections"]] == ["person"]
    log = annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 3)
    assert statuses(annotations, media["id"]) == [1, 2, 3]
    assert check_log(log) == []
    assert annotations.records()[0]["path"] == str(service.images / f"{media['id']}.jpg")
    assert annotations.records()[0]["userId"] == "ada"


def test_an_outage_delays_the_messages_and_loses_none(service: Service, annotations: ReferenceService) -> None:
    annotations.stop()
    answer = service.upload("/detect", CHELSEA)
    assert answer.status_code == 201
    media_id = answer.json()["media"]["id"]
    assert service.flask("outbox", "flush", "--json").returncode == 1
    annotations.start()
    flushed = service.flask("outbox", "flush", "--wait", "--timeout", "30", "--json")
    assert flushed.returncode == 0, flushed.stderr
    assert statuses(annotations, media_id) == [1, 2, 3]
    assert check_log(annotations.log()) == []


def test_the_same_bytes_again_are_a_duplicate_with_the_stored_result(
    service: Service, annotations: ReferenceService
) -> None:
    first = service.upload("/detect", ASTRONAUT, user="ada").json()
    again = service.upload("/detect", ASTRONAUT, name="renamed.jpeg", user="grace")
    assert again.status_code == 200
    assert again.json()["duplicate"] is True
    assert again.json()["annotations"] == first["annotations"]
    assert again.json()["media"]["run"] == first["media"]["run"]
    assert again.json()["media"]["userId"] == "ada"
    assert service.stored() == {f"{first['media']['id']}.jpg"}
    annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 3)
    assert statuses(annotations, first["media"]["id"]) == [1, 2, 3]


def test_other_bytes_under_the_same_id_are_refused_and_the_file_is_untouched(service: Service) -> None:
    original = ASTRONAUT.read_bytes()
    outside_the_sample = len(original) // 4
    altered = bytearray(original)
    altered[outside_the_sample] ^= 0xFF
    assert media_id_of_bytes(bytes(altered)) == media_id_of_bytes(original)
    assert service.upload("/media", original).status_code == 201
    refused = service.upload("/media", bytes(altered))
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("media-id-collision")
    [path] = list(service.images.glob("*.jpg"))
    assert path.read_bytes() == original
    assert service.leftovers() == []
