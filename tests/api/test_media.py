"""Media items without detection: store, list, download, follow."""

import json
from typing import Any

import pytest
import xxhash

from app.database.models import MediaStatus
from app.media.hashing import media_id_of_bytes
from tests.api.conftest import RUNS_OUT, Api, MakeApi, picture

MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(64)


def events(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a text/event-stream as (name, data)."""
    found = []
    for block in body.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [media["id"] for media in answer.json["items"]]


def test_a_file_is_stored_under_its_id_and_recorded_as_new(api: Api) -> None:
    answer = api.upload("/media", picture(1), "beach.jpg")
    media_id = media_id_of_bytes(picture(1))
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/media/{media_id}"
    assert answer.json is not None
    assert answer.json["duplicate"] is False
    assert answer.json["media"]["mediaStatus"] == 1
    assert answer.json["media"]["run"] is None
    assert (api.images / f"{media_id}.jpg").read_bytes() == picture(1)
    shown = api.get(f"/media/{media_id}").json
    assert shown is not None
    assert {name: shown[name] for name in ("id", "name", "mediaType", "userId", "sizeBytes", "checksum")} == {
        "id": media_id,
        "name": "beach.jpg",
        "mediaType": "Image",
        "userId": "ada",
        "sizeBytes": len(picture(1)),
        "checksum": xxhash.xxh3_128_hexdigest(picture(1)),
    }


def test_a_new_media_is_answered_as_it_is_shown_later(api: Api) -> None:
    answer = api.upload("/media", picture(70)).json
    assert answer is not None
    assert answer["media"] == api.get(f"/media/{media_id_of_bytes(picture(70))}").json


def test_the_same_file_again_changes_nothing(api: Api) -> None:
    first = api.upload("/media", picture(2), "first.jpg", user="ada").json
    again = api.upload("/media", picture(2), "second.jpeg", user="grace")
    assert again.status_code == 200
    assert first is not None
    assert again.json is not None
    assert again.json["duplicate"] is True
    assert {name: again.json["media"][name] for name in ("id", "name", "userId", "createdAt")} == {
        name: first["media"][name] for name in ("id", "name", "userId", "createdAt")
    }


def test_a_list_is_newest_first_and_filtered(make_api: MakeApi) -> None:
    api = make_api()
    old, new = picture(3), picture(4)
    api.upload("/media", old)
    api.upload("/media", MP4, "clip.mp4")
    api.upload("/media", new)
    api.upload("/detect", RUNS_OUT)
    old_id, clip_id, new_id, broken_id = map(media_id_of_bytes, (old, MP4, new, RUNS_OUT))
    assert ids(api.get("/media")) == [broken_id, new_id, clip_id, old_id]
    assert ids(api.get("/media?type=Video")) == [clip_id]
    assert ids(api.get("/media?type=Image&status=1")) == [new_id, old_id]
    assert ids(api.get(f"/media?status={int(MediaStatus.ERROR)}")) == [broken_id]
    assert ids(api.get("/media?status=2")) == []


def test_pages_bring_every_media_once_though_more_arrive_meanwhile(make_api: MakeApi) -> None:
    api = make_api()
    expected: list[str] = []
    for seed in range(100, 107):
        api.upload("/media", picture(seed))
        expected.insert(0, media_id_of_bytes(picture(seed)))
    seen, cursor, pages = [], "", 0
    while True:
        page = api.get(f"/media?limit=3{cursor}")
        seen += ids(page)
        pages += 1
        api.upload("/media", picture(200 + pages))
        assert page.json is not None
        if page.json["nextCursor"] is None:
            break
        cursor = f"&cursor={page.json['nextCursor']}"
    assert seen == expected
    assert pages == 3


def test_a_page_that_is_exactly_full_is_the_last_one(make_api: MakeApi) -> None:
    api = make_api()
    api.upload("/media", picture(5))
    api.upload("/media", picture(6))
    page = api.get("/media?limit=2").json
    assert page is not None
    assert len(page["items"]) == 2
    assert page["nextCursor"] is None


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%D9%A3", "limit"),  # a digit, but not ASCII
        ("limit=" + "9" * 5000, "limit"),
        ("status=4", "status"),
        ("status=New", "status"),
        ("type=video", "type"),
        ("cursor=elsewhere", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=0x1p99999_0123456789abcdef", "cursor"),
        ("cursor=%00", "cursor"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(api: Api, query: str, named: str) -> None:
    answer = api.get(f"/media?{query}")
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["type"].endswith("malformed-upload")
    assert named in answer.json["detail"]
    assert len(answer.data) < 1000


def test_a_download_is_the_stored_bytes_and_never_run_by_a_browser(api: Api) -> None:
    media_id = media_id_of_bytes(picture(7))
    api.send_raw("/media?name=a%20%22quoted%22;%20n%C3%A4me.jpg", picture(7))
    with api.get(f"/media/{media_id}/content") as answer:
        assert answer.status_code == 200
        assert answer.data == picture(7)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Length"] == str(len(picture(7)))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert "n%C3%A4me.jpg" in answer.headers["Content-Disposition"]
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.get_etag() == (media_id, False)
        assert "private" in answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    ("wanted", "begin", "end"), [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=-5", -5, None)]
)
def test_a_part_of_a_download_can_be_asked_for(api: Api, wanted: str, begin: int, end: int | None) -> None:
    api.upload("/media", picture(8))
    with api.get(f"/media/{media_id_of_bytes(picture(8))}/content", headers={"Range": wanted}) as answer:
        part = picture(8)[begin:end]
        start = picture(8).index(part, max(begin, 0))
        assert answer.status_code == 206
        assert answer.data == part
        assert answer.headers["Content-Length"] == str(len(part))
        if begin >= 0:
            assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(picture(8))}"


def test_a_part_beyond_the_end_is_refused(api: Api) -> None:
    size = len(picture(9))
    api.upload("/media", picture(9))
    answer = api.get(f"/media/{media_id_of_bytes(picture(9))}/content", headers={"Range": f"bytes={size}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{size}"
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "wanted",
    [
        *("", "items=0-1", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-1", "bytes=--1", "bytes=0-1,4-5"),
        *("bytes=1_0-", "bytes=0-0x5", "bytes=+5-", "bytes=²-", "bytes=0-" + "9" * 5000, "bytes=" + "0-," * 3000),
    ],
)  # fmt: skip
def test_a_range_that_is_none_is_answered_with_the_whole_file(api: Api, wanted: str) -> None:
    api.upload("/media", picture(9))
    with api.get(f"/media/{media_id_of_bytes(picture(9))}/content", headers={"Range": wanted}) as answer:
        assert answer.status_code == 200
        assert answer.data == picture(9)


@pytest.mark.parametrize("wanted", ["bytes=0-99999999999999999999", "bytes=-99999999999999999999", "Bytes = 0 - "])
def test_a_part_may_be_asked_for_that_is_larger_than_the_file(api: Api, wanted: str) -> None:
    api.upload("/media", picture(9))
    with api.get(f"/media/{media_id_of_bytes(picture(9))}/content", headers={"Range": wanted}) as answer:
        assert answer.status_code == 206
        assert answer.data == picture(9)


def test_a_part_is_given_only_of_the_version_that_was_meant(api: Api) -> None:
    api.upload("/media", picture(10))
    media_id = media_id_of_bytes(picture(10))
    path = f"/media/{media_id}/content"
    with api.get(path, headers={"Range": "bytes=0-3", "If-Range": f'"{media_id}"'}) as same:
        assert same.status_code == 206
        assert same.data == picture(10)[:4]
    with api.get(path, headers={"Range": "bytes=0-3", "If-Range": '"another"'}) as other:
        assert other.status_code == 200
        assert other.data == picture(10)
    with api.get(path, headers={"If-None-Match": f'"{media_id}"'}) as unchanged:
        assert unchanged.status_code == 304
        assert unchanged.data == b""


def test_the_size_of_a_download_can_be_asked_without_it(api: Api) -> None:
    api.upload("/media", picture(11))
    with api.request("HEAD", f"/media/{media_id_of_bytes(picture(11))}/content") as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Length"] == str(len(picture(11)))
        assert answer.data == b""


def test_a_media_whose_file_is_gone_is_a_failure_of_ours(api: Api) -> None:
    api.upload("/media", picture(12))
    media_id = media_id_of_bytes(picture(12))
    (api.images / f"{media_id}.jpg").unlink()
    answer = api.get(f"/media/{media_id}/content")
    assert answer.status_code == 500
    assert str(api.images) not in answer.text
    assert api.services.slots.taken == 0


@pytest.mark.parametrize("path", ["", "/content", "/detections", "/events"])
@pytest.mark.parametrize("media_id", ["0123456789abcdef", "V0123456789abcdef", "0123456789ABCDEF", "%00"])
def test_an_unknown_media_is_not_found(api: Api, media_id: str, path: str) -> None:
    answer = api.get(f"/media/{media_id}{path}")
    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["type"].endswith("not-found")


def test_a_followed_run_is_told_of_until_it_has_ended(make_api: MakeApi) -> None:
    api = make_api()
    media_id = media_id_of_bytes(picture(13))
    accepted = api.upload("/detect", picture(13), headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    with api.get(f"/media/{media_id}/events") as answer:
        assert answer.content_type.split(";")[0] == "text/event-stream"
        told = events(answer.data)
    statuses = [data["mediaStatus"] for name, data in told if name == "status"]
    assert statuses == sorted(statuses)
    assert statuses[-1] == 3
    states = [data["state"] for name, data in told if name == "progress"]
    assert states[-1] == "done"
    assert [name for name, _ in told].count("done") == 1
    assert told[-1] == ("done", api.get(f"/media/{media_id}").json)


def test_a_failed_run_ends_its_events_too(api: Api) -> None:
    api.upload("/detect", RUNS_OUT)
    with api.get(f"/media/{media_id_of_bytes(RUNS_OUT)}/events") as answer:
        told = events(answer.data)
    assert ("status", {"mediaStatus": 6}) in told
    name, last = told[-1]
    assert name == "done"
    assert last["run"]["state"] == "failed"
