"""POST /detect in all its forms: what it returns, what it stores, and what it does not change."""

import io
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
import xxhash
from PIL import Image

from app.detection.protocol.requests import Job
from app.errors import Unavailable
from app.media.hashing import media_id_of_bytes, virtual_id_of_bytes
from app.runs.executor import WAITING_IN_MEMORY, RunExecutor
from tests.api.conftest import ASTRONAUT, RUNS_OUT, Api, MakeApi, Untouched, picture, settings_in
from tests.detection.clips import Clip, without_pictures
from tests.detection.heif_bytes import heic
from tests.eventually import eventually
from tests.reference.service import ReferenceService
from tests.system.service import token

pytestmark = pytest.mark.slow

GHOST = "0123456789abcdef"


def ended(api: Api, media_id: str) -> dict[str, Any]:
    """Return the media item after its last run has ended."""

    def media() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"/media/{media_id}").json  # type: ignore[assignment]
        return found if found["run"] and found["run"]["state"] in ("done", "failed") else None

    return eventually(media, "the run to end")


def brought_by_another_service(annotations: ReferenceService, media_id: str, path: Path, content: bytes) -> None:
    """Create the file and its record at the annotations service, without this service."""
    path.write_bytes(content)
    record = {
        "id": media_id,
        "name": "a.jpg",
        "path": str(path),
        "mediaType": "Image",
        "mediaStatus": 1,
        "userId": "ada",
    }
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {token()}", "Idempotency-Key": str(uuid.uuid4())}
        assert session.post(f"{annotations.url}/api/media", json=record, headers=headers, timeout=10).status_code == 201


def test_a_photo_is_answered_with_the_person_on_it(api: Api) -> None:
    answer = api.upload("/detect", ASTRONAUT.read_bytes(), "Ada's photo.JPG")
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/media/{media_id_of_bytes(ASTRONAUT.read_bytes())}"
    body = answer.json
    assert body is not None
    assert body.keys() == {"media", "duplicate", "annotations"}
    media, [frame] = body["media"], body["annotations"]
    assert {name: media[name] for name in ("name", "mediaType", "mediaStatus", "userId", "sizeBytes")} == {
        "name": "Ada's photo.JPG",
        "mediaType": "Image",
        "mediaStatus": 3,
        "userId": "ada",
        "sizeBytes": ASTRONAUT.stat().st_size,
    }
    run = media["run"]
    assert run["state"] == "done"
    assert run["framesDone"] == 1
    assert run["framesTotal"] == 1
    assert run["error"] is None
    assert media["createdAt"] <= run["startedAt"] <= run["finishedAt"]
    assert media["delivery"].keys() >= {"pending", "delivered", "parked", "attempts", "nextAttemptAt", "lastError"}
    assert media["delivery"]["pending"] == 3
    assert media["delivery"]["delivered"] == 0
    assert frame["frame"] == 0
    assert frame["time"] == 0.0
    assert frame["sourceFrame"] == 0
    [person] = frame["detections"]
    assert person.keys() == {"classNum", "label", "confidence", "centerX", "centerY", "width", "height"}
    assert person["label"] == "person"
    assert all(0 <= person[name] <= 1 for name in ("confidence", "centerX", "centerY", "width", "height"))


def test_what_was_detected_is_also_found_later(api: Api) -> None:
    answer = api.upload("/detect", ASTRONAUT.read_bytes()).json
    assert answer is not None
    later = api.get(f"/media/{answer['media']['id']}/detections").json
    assert later == {"run": answer["media"]["run"], "annotations": answer["annotations"]}


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?name=holiday.png", {}),
        ("", {"Content-Disposition": "attachment; filename=holiday.png"}),
        ("", {"Content-Disposition": "attachment; filename*=UTF-8''holiday.png"}),
        ("?name=other.jpg", {"Content-Disposition": 'attachment; filename="holiday.png"'}),
    ],
)
def test_a_raw_body_is_named_by_the_query_or_its_disposition(
    api: Api, query: str, headers: dict[str, str], request: pytest.FixtureRequest
) -> None:
    content = picture(sum(request.node.name.encode()), kind="PNG")
    answer = api.send_raw(f"/detect{query}", content, "application/octet-stream", headers=headers)
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json["media"]["name"] == "holiday.png"
    assert answer.json["media"]["id"] == media_id_of_bytes(content)


def test_the_same_bytes_again_are_answered_from_the_stored_result(api: Api) -> None:
    first = api.upload("/detect", picture(10)).json
    again = api.upload("/detect", picture(10), "again.jpeg", user="grace")
    assert again.status_code == 200
    assert first is not None
    assert again.json == first | {"duplicate": True}


def test_a_rerun_is_a_new_run_of_the_same_media(api: Api) -> None:
    first = api.upload("/detect", picture(11)).json
    again = api.upload("/detect?rerun=true", picture(11))
    assert again.status_code == 200
    assert again.json is not None
    assert first is not None
    assert again.json["media"]["id"] == first["media"]["id"]
    assert again.json["media"]["run"]["id"] > first["media"]["run"]["id"]
    assert again.json["media"]["delivery"]["pending"] == 5


def test_another_threshold_is_not_answered_with_the_result_of_the_first(api: Api) -> None:
    first = api.upload("/detect", picture(12)).json
    lower = api.upload("/detect?confidence=0.01", picture(12)).json
    assert first is not None
    assert lower is not None
    assert lower["media"]["run"]["id"] > first["media"]["run"]["id"]


def test_a_known_media_item_without_a_run_gets_one(api: Api) -> None:
    stored = api.upload("/media", picture(13)).json
    assert stored is not None
    assert stored["media"]["mediaStatus"] == 1
    assert stored["media"]["run"] is None
    answer = api.upload("/detect", picture(13))
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["duplicate"] is True
    assert answer.json["media"]["mediaStatus"] == 3


def test_a_stored_media_gets_a_new_run_by_its_id(api: Api) -> None:
    first = api.upload("/detect", picture(14)).json
    assert first is not None
    again = api.request("POST", f"/detect/{first['media']['id']}")
    assert again.status_code == 200
    assert again.json is not None
    assert again.json["media"]["run"]["id"] > first["media"]["run"]["id"]


def test_what_cannot_be_decoded_is_stored_and_at_error(api: Api) -> None:
    answer = api.upload("/detect", RUNS_OUT)
    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["type"].endswith("undecodable")
    media_id = answer.json["mediaId"]
    assert media_id == media_id_of_bytes(RUNS_OUT)
    media = api.get(f"/media/{media_id}").json
    assert media is not None
    assert media["mediaStatus"] == 6
    assert media["run"]["state"] == "failed"
    assert media["run"]["error"]
    assert f"{media_id}.jpg" in api.stored()
    assert api.get(f"/media/{media_id}/detections").status_code == 404


def test_a_damaged_picture_is_processed_as_far_as_it_goes_and_its_run_says_what_is_missing(api: Api) -> None:
    content = picture(71, (640, 480))
    assert api.upload("/detect", content).json["media"]["run"]["warnings"] == []  # type: ignore[index]
    answer = api.upload("/detect", content[: len(content) * 9 // 10])
    assert answer.status_code == 201
    media = answer.json["media"]  # type: ignore[index]
    [warning] = media["run"]["warnings"]
    assert re.fullmatch(r"the picture ends early: the last \d+ % of its rows are missing", warning)
    assert media["mediaStatus"] == 3
    assert media["run"]["error"] is None
    assert api.get(f"/media/{media['id']}").json["run"]["warnings"] == [warning]  # type: ignore[index]
    in_memory = api.upload("/detect?persist=false", content[: len(content) * 9 // 10])
    assert in_memory.json["warnings"] == [warning]  # type: ignore[index]


@pytest.mark.parametrize("extension", ["jpe", "jfif", "gif", "heic", "heif", "avif"])
def test_a_picture_of_each_newer_kind_is_processed_and_served_as_what_it_is(extension: str, api: Api) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    file = io.BytesIO()
    match extension:
        case "heic" | "heif":
            file.write(heic(photo, tile=256, brand=b"heic" if extension == "heic" else b"mif1"))
        case "gif" | "avif":
            photo.save(file, extension)
        case _:
            photo.save(file, "JPEG", comment=extension)
    answer = api.upload("/detect", file.getvalue(), f"photo.{extension}")
    assert answer.status_code == 201, answer.text
    [frame] = answer.json["annotations"]  # type: ignore[index]
    assert [found["label"] for found in frame["detections"]] == ["person"]
    expected = {"jpe": "image/jpeg", "jfif": "image/jpeg"}.get(extension, f"image/{extension}")
    with api.get(f"{answer.headers['Location']}/content") as served:
        assert served.content_type == expected
        assert served.data == file.getvalue()


@pytest.mark.parametrize("name", ["p.mpg", "w.wmv", "f.flv", "p.3gp", "one.insv", "small.lrf"])
def test_a_video_of_each_newer_kind_is_processed(name: str, api: Api, tmp_path: Path) -> None:
    codec = {"mpg": "mpeg2video", "wmv": "wmv2", "flv": "flv"}.get(name[-3:], "libx264")
    written = name if name[-3:] in ("mpg", "wmv", "flv", "3gp") else f"{name}.mp4"
    photo = Image.open(ASTRONAUT).convert("RGB")
    clip = Clip(written, codec=codec, rate=30, frames=31, width=320 + 16 * len(name)).write(tmp_path, photo)
    answer = api.upload("/detect", clip.read_bytes(), name)
    assert answer.status_code == 201, answer.text
    assert answer.json["media"]["run"]["framesDone"] == 3  # type: ignore[index]
    frames = {frame["frame"]: frame["sourceFrame"] for frame in answer.json["annotations"]}  # type: ignore[index]
    assert frames.items() <= {0: 0, 1: 15, 2: 30}.items()
    assert frames


def test_the_first_bytes_of_newer_kinds_must_agree_with_their_names(api: Api, tmp_path: Path) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB").resize((64, 64))
    answer = api.upload("/detect", heic(photo), "photo.mp4")
    assert answer.status_code == 415
    assert api.upload("/detect", heic(photo), "photo.jpg").status_code == 415
    assert "are those of HEIC/AVIF" in answer.text
    clip = Clip("flash.flv", codec="flv").write(tmp_path, photo)
    assert api.upload("/detect", clip.read_bytes(), "clip.wmv").status_code == 415


def test_in_memory_detection_answers_and_keeps_nothing(make_api: MakeApi, annotations: ReferenceService) -> None:
    api = make_api(annotations)
    content = ASTRONAUT.read_bytes()
    # respond-async cannot apply, because nothing is stored.
    answer = api.upload("/detect?persist=false", content, headers={"Prefer": "respond-async"})
    assert answer.status_code == 200
    body = answer.json
    assert body is not None
    assert body["media"]["id"] == virtual_id_of_bytes(content)
    assert body["media"]["id"].startswith("V")
    assert body["media"]["checksum"] == xxhash.xxh3_128_hexdigest(content)
    [[person]] = [frame["detections"] for frame in body["annotations"]]
    assert person["label"] == "person"
    assert api.get(f"/media/{body['media']['id']}").status_code == 404
    assert api.get("/media").json == {"items": [], "nextCursor": None}
    assert api.stored() == set()
    assert api.leftovers() == []
    # The stored item's create arrives; a message for the other would have arrived before it.
    stored = api.upload("/media", picture(20)).json
    assert stored is not None
    log = annotations.wait_for(lambda entries: len(entries) > 0)
    assert [entry["mediaId"] for entry in log] == [stored["media"]["id"]]


def test_in_memory_detection_refuses_what_is_no_picture(api: Api) -> None:
    before = api.stored()
    video = api.upload("/detect?persist=false", b"\0\0\0\x18ftypmp42" + bytes(64), "clip.mp4")
    assert video.status_code == 415
    assert (video.json and video.json["type"].split(":")[-1]) == "unsupported-media"
    broken = api.upload("/detect?persist=false", RUNS_OUT)
    assert broken.status_code == 422
    assert (broken.json and broken.json["type"].split(":")[-1]) == "undecodable"
    assert api.stored() == before


def test_in_memory_detection_takes_64_mib_and_no_more(api: Api) -> None:
    limit = 64 << 20
    content = picture(21)
    fits = api.send_raw("/detect?persist=false&name=a.jpg", content + bytes(limit - len(content)))
    assert fits.status_code == 200
    too_large = api.send_raw("/detect?persist=false&name=a.jpg", content + bytes(limit - len(content) + 1))
    assert too_large.status_code == 413
    assert too_large.json is not None
    assert too_large.json["type"].endswith("too-large")


def wait_until_full(executor: RunExecutor) -> None:
    def is_full() -> bool:
        try:
            executor.ensure_capacity("ada")
        except Unavailable:
            return True
        return False

    eventually(is_full)


def test_in_memory_detection_without_a_place_in_its_queue_is_refused_unread(
    tmp_path: Path, sqlite_template: Path
) -> None:
    def wait(executor: RunExecutor) -> None:
        with pytest.raises(Unavailable):
            executor.detect(Job(picture(22), "Image"), 60, user="ada")

    with closing(Api(settings_in(tmp_path, sqlite_template, None, {}))) as api, ThreadPoolExecutor() as waiting:
        executor = api.services.executor  # it was not started, so requests keep waiting
        jobs = [waiting.submit(wait, executor) for _place in range(WAITING_IN_MEMORY)]
        body = Untouched(picture(22))
        try:
            wait_until_full(executor)
            refused = api.request(
                "POST",
                "/detect?persist=false&name=a.jpg",
                content_type="image/jpeg",
                environ_overrides=body.environ,
            )
            assert not body.was_read
            assert refused.status_code == 503
            assert refused.json is not None
            assert refused.json["type"].endswith("unavailable")
            assert int(refused.headers["Retry-After"]) > 0
        finally:
            executor.stop()
        assert [job.result() for job in jobs] == [None] * WAITING_IN_MEMORY


def test_the_answer_comes_later_where_that_is_preferred(api: Api) -> None:
    answer = api.upload("/detect", picture(30), headers={"Prefer": "wait=5, respond-async"})
    media_id = media_id_of_bytes(picture(30))
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/media/{media_id}"
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert ended(api, media_id)["mediaStatus"] == 3
    again = api.request("POST", f"/detect/{media_id}", headers={"Prefer": "respond-async"})
    assert again.status_code == 202
    assert again.headers["Preference-Applied"] == "respond-async"
    assert ended(api, media_id)["mediaStatus"] == 3


def test_the_answer_comes_later_where_the_run_takes_too_long(make_api: MakeApi) -> None:
    api = make_api(SYNC_WAIT_SECONDS="0.001")
    answer = api.upload("/detect", picture(31))
    media_id = media_id_of_bytes(picture(31))
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/media/{media_id}"
    assert "Preference-Applied" not in answer.headers
    assert ended(api, media_id)["mediaStatus"] == 3


def test_a_second_run_at_the_same_time_is_refused(make_api: MakeApi) -> None:
    api = make_api(SYNC_WAIT_SECONDS="0.001")
    api.services.executor.stop()  # no process works on runs, so the first one stays under way
    media_id = media_id_of_bytes(picture(32))
    assert api.upload("/detect", picture(32)).status_code == 202
    by_id = api.request("POST", f"/detect/{media_id}")
    assert by_id.status_code == 409
    assert (by_id.json and by_id.json["type"].split(":")[-1]) == "already-processing"
    again = api.upload("/detect?rerun=true", picture(32))
    assert again.status_code == 409
    assert (again.json and again.json["type"].split(":")[-1]) == "already-processing"
    # Without `rerun` the run under way is waited for.
    joined = api.upload("/detect", picture(32))
    assert joined.status_code == 202
    assert (joined.json and joined.json["duplicate"]) is True


@pytest.mark.parametrize("media_id", [GHOST, f"V{GHOST}", "%00", "..%2f..", "x" * 300])
def test_an_unknown_media_has_no_run(api: Api, media_id: str) -> None:
    answer = api.request("POST", f"/detect/{media_id}")
    assert answer.status_code == 404
    assert (answer.json and answer.json["type"].split(":")[-1]) == "not-found"


def test_a_nul_in_an_id_is_unknown_on_postgresql_too(make_api: MakeApi, postgres_url: str) -> None:
    api = make_api(DATABASE_URL=postgres_url)
    assert api.request("POST", "/detect/%00").status_code == 404
    assert api.get("/media/%00").status_code == 404
    assert api.get("/media/%00/content").status_code == 404
    assert api.get("/media?cursor=0x1p0_%00").status_code == 400


def test_a_media_that_only_the_annotations_service_knows_is_adopted_without_a_create(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations)
    media_id = media_id_of_bytes(picture(40))
    brought_by_another_service(annotations, media_id, api.images / f"{media_id}.jpg", picture(40))
    assert api.get(f"/media/{media_id}").status_code == 404
    answer = api.request("POST", f"/detect/{media_id}", user="grace")
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert answer.json["media"]["mediaStatus"] == 3
    assert answer.json["media"]["userId"] == "ada"
    log = annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 3)
    assert [entry["method"] for entry in log if entry["method"] != "GET"] == ["POST", "PUT", "PUT"]


def test_a_media_whose_file_is_not_in_our_folders_is_not_adopted(
    make_api: MakeApi, annotations: ReferenceService, tmp_path: Path
) -> None:
    api = make_api(annotations)
    media_id = media_id_of_bytes(picture(41))
    brought_by_another_service(annotations, media_id, tmp_path / f"{media_id}.jpg", picture(41))
    assert api.request("POST", f"/detect/{media_id}").status_code == 404
    assert api.get("/media").json == {"items": [], "nextCursor": None}


def test_an_unknown_media_is_not_called_unknown_while_nobody_can_be_asked(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    annotations.start()
    annotations.stop()
    api = make_api(annotations)
    answer = api.request("POST", f"/detect/{GHOST}")
    assert answer.status_code == 503
    assert (answer.json and answer.json["type"].split(":")[-1]) == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    # A known item needs no annotations service.
    known = api.upload("/media", picture(42)).json
    assert known is not None
    assert api.request("POST", f"/detect/{known['media']['id']}").status_code == 200


def test_corrupt_packets_of_a_video_are_counted_in_its_run(api: Api, tmp_path: Path) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    broken = without_pictures(Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes(), range(3, 7))
    answer = api.upload("/detect", broken, "broken.avi")
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json["media"]["run"]["packetsSkipped"] == 4
    hopeless = without_pictures(Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes(), range(30))
    assert api.upload("/detect", hopeless, "hopeless.avi").status_code == 422
    run = api.get(f"/media/{media_id_of_bytes(hopeless)}").json["run"]  # type: ignore[index]
    assert run["state"] == "failed"
    assert run["framesDone"] == 0
    assert run["packetsSkipped"] == 30
