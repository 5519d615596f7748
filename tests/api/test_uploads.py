"""Resumable uploads by tus 1.0.0, request by request."""

import base64
import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.media.hashing import media_id_of_bytes
from tests.api.conftest import RUNS_OUT, Api, MakeApi, picture
from tests.ingest.intake import twin_of

PART = "application/offset+octet-stream"


def metadata(**values: str | None) -> str:
    """Return `Upload-Metadata` with these pairs; None means a key without a value."""
    pairs = {"filename": "photo.jpg", "detect": "false"} | values
    return ",".join(
        key if value is None else f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )


class Tus:
    """The requests of a tus 1.0.0 client."""

    def __init__(self, api: Api, user: str = "ada") -> None:
        self.api = api
        self.user = user

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> TestResponse:
        spoken = {"Tus-Resumable": "1.0.0"} | (headers or {})
        return self.api.request(method, path, headers=spoken, user=self.user, **options)

    def create(
        self, length: int | None, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> TestResponse:
        fields = {"Upload-Metadata": metadata()}
        fields |= {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        fields |= headers or {}
        if body is None:
            return self.request("POST", "/uploads", fields)
        return self.request("POST", "/uploads", fields, data=body, content_type=PART)

    def new(self, length: int | None, headers: dict[str, str] | None = None) -> str:
        """Create an upload and return its address."""
        created = self.create(length, headers)
        assert created.status_code == 201, created.get_data(as_text=True)
        return created.headers["Location"]

    def patch(self, address: str, offset: int, body: bytes, headers: dict[str, str] | None = None) -> TestResponse:
        fields = {"Upload-Offset": str(offset)} | (headers or {})
        return self.request("PATCH", address, fields, data=body, content_type=PART)

    def offset(self, address: str) -> int:
        """Return the offset from HEAD."""
        told = self.request("HEAD", address)
        assert told.status_code == 200
        return int(told.headers["Upload-Offset"])

    def state(self, address: str) -> Any:
        told = self.api.get(address, user=self.user)
        assert told.status_code == 200
        return told.get_json()


@pytest.fixture
def tus(api: Api) -> Iterator[Tus]:
    yield Tus(api)
    for path in api.leftovers():
        path.unlink()


def test_a_file_in_three_parts_becomes_the_media_item_that_it_would_have_become_at_once(tus: Tus) -> None:
    photo = picture(101)
    address = tus.new(len(photo))
    assert address.startswith("/uploads/")
    first = tus.patch(address, 0, photo[:1000])
    assert first.status_code == 204
    assert first.headers["Upload-Offset"] == "1000"
    assert first.data == b""
    assert tus.offset(address) == 1000
    assert tus.patch(address, 1000, photo[1000:1001]).headers["Upload-Offset"] == "1001"
    last = tus.patch(address, 1001, photo[1001:])
    assert last.status_code == 204
    assert last.headers["Upload-Offset"] == str(len(photo))
    where = last.headers["Content-Location"]
    assert tus.api.get(f"{where}/content", buffered=True).data == photo
    again = tus.api.send_raw("/media?name=photo.jpg", photo)
    assert again.status_code == 200
    assert again.get_json()["duplicate"] is True
    assert again.get_json()["media"]["checksum"] == tus.api.get(where).get_json()["checksum"]
    state = tus.state(address)
    assert state["state"] == "complete"
    assert state["offset"] == len(photo)
    assert state["length"] == len(photo)
    assert state["media"]["id"] == where.rpartition("/")[2]
    assert state["duplicate"] is False
    assert state["problem"] is None
    assert tus.offset(address) == len(photo)
    assert tus.api.leftovers() == []


def test_a_part_that_does_not_follow_is_refused_with_the_right_offset(tus: Tus) -> None:
    address = tus.new(100)
    tus.patch(address, 0, b"\xff\xd8\xff" + bytes(7))
    for wrong in (0, 9, 11):
        refused = tus.patch(address, wrong, b"x")
        assert refused.status_code == 409
        assert refused.headers["Upload-Offset"] == "10"
        assert refused.get_json()["type"].endswith("wrong-offset")
    assert tus.offset(address) == 10


def test_an_upload_that_was_ended_is_gone_and_its_file_too(tus: Tus) -> None:
    address = tus.new(100)
    assert len(tus.api.leftovers()) == 1
    assert tus.request("DELETE", address).status_code == 204
    for method in ("HEAD", "PATCH", "DELETE", "GET"):
        response = tus.patch(address, 0, b"x") if method == "PATCH" else tus.request(method, address)
        assert response.status_code == 404
    assert tus.api.leftovers() == []


def test_checksums_are_held_against_the_bytes_and_none_of_a_wrong_part_counts(tus: Tus) -> None:
    photo = picture(102)
    address = tus.new(len(photo))
    good = base64.b64encode(hashlib.sha1(photo[:500], usedforsecurity=False).digest()).decode()
    assert tus.patch(address, 0, photo[:500], {"Upload-Checksum": f"sha1 {good}"}).status_code == 204
    wrong = tus.patch(address, 500, photo[500:], {"Upload-Checksum": f"sha1 {good}"})
    assert wrong.status_code == 460
    assert tus.offset(address) == 500
    rest = base64.b64encode(hashlib.sha256(photo[500:]).digest()).decode()
    assert tus.patch(address, 500, photo[500:], {"Upload-Checksum": f"sha256 {rest}"}).status_code == 204
    assert tus.state(address)["state"] == "complete"


def test_what_is_spoken_is_told_without_a_token(api: Api) -> None:
    for path in ("/uploads", "/uploads/anything"):
        told = api.app.test_client().options(path)
        assert told.status_code == 204
        assert told.headers["Tus-Resumable"] == "1.0.0"
        assert told.headers["Tus-Version"] == "1.0.0"
        assert set(told.headers["Tus-Extension"].split(",")) == {
            "creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration", "termination",
            "concatenation",
        }  # fmt: skip
        assert told.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"
        assert told.headers["Tus-Max-Size"] == str(api.services.settings.max_upload_bytes)


def test_everything_else_wants_a_token(api: Api) -> None:
    for method, path in (("POST", "/uploads"), *((each, "/uploads/x") for each in ("HEAD", "PATCH", "DELETE", "GET"))):
        assert api.app.test_client().open(path, method=method).status_code == 401


def test_another_version_of_the_protocol_is_refused_and_ours_is_told(tus: Tus) -> None:
    address = tus.new(10)
    for spoken in ({"Tus-Resumable": "0.2.2"}, {"Tus-Resumable": ""}):
        for method, path in (("POST", "/uploads"), ("HEAD", address), ("PATCH", address), ("DELETE", address)):
            refused = tus.request(method, path, spoken)
            assert refused.status_code == 412
            assert refused.headers["Tus-Version"] == "1.0.0"


def test_an_upload_is_its_users_alone(tus: Tus) -> None:
    address, other = tus.new(10), Tus(tus.api, "bob")
    assert other.patch(address, 0, b"x").status_code == 404
    for method in ("HEAD", "GET", "DELETE"):
        assert other.request(method, address).status_code == 404
    assert tus.offset(address) == 0


@pytest.mark.parametrize(
    ("length", "told", "status", "problem"),
    [
        (10, {"Upload-Metadata": metadata(filename="notes.txt")}, 415, "unsupported-media"),
        (10, {"Upload-Metadata": ""}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": "filename cGhvdG8uanBn,filename cGhvdG8uanBn"}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": "filename ???"}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": "filename /w=="}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": metadata(confidence="2")}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": metadata(frameInterval="0")}, 400, "malformed-upload"),
        (10, {"Upload-Metadata": metadata(rerun="perhaps")}, 400, "malformed-upload"),
        (10, {"Upload-Length": "-1"}, 400, "malformed-upload"),
        (10, {"Upload-Length": "9" * 25}, 400, "malformed-upload"),
        (10, {"Upload-Defer-Length": "1"}, 400, "malformed-upload"),
        (None, {"Upload-Defer-Length": "2"}, 400, "malformed-upload"),
        (10, {"Upload-Concat": "final;/uploads/no-id"}, 400, "malformed-upload"),
        (0, {}, 400, "malformed-upload"),
        (1 << 40, {}, 413, "too-large"),
    ],
)
def test_what_cannot_become_a_media_item_is_refused_before_its_first_byte(
    tus: Tus, length: int | None, told: dict[str, str], status: int, problem: str
) -> None:
    refused = tus.create(length, told)
    assert refused.status_code == status
    assert refused.content_type == "application/problem+json"
    assert refused.get_json()["type"].endswith(problem)
    assert tus.api.leftovers() == []


def test_a_file_that_has_no_room_is_refused_before_its_first_byte_and_unfinished_uploads_count(
    make_api: MakeApi,
) -> None:
    tus = Tus(make_api(MAX_UPLOAD_BYTES=str(1 << 60)))
    free = tus.api.services.storage.free_bytes(tus.api.images)
    address = tus.new(free * 3 // 4)
    refused = tus.create(free * 3 // 4)
    assert refused.status_code == 507
    assert refused.get_json()["type"].rpartition(":")[2] == "storage-full"
    assert tus.request("DELETE", address).status_code == 204
    tus.new(free * 3 // 4)


def test_metadata_comes_back_as_it_was_sent_in_utf_8_and_without_a_value(tus: Tus) -> None:
    photo = picture(103)
    said = metadata(filename="Ferien – Äpfel 🍎.jpg", relativePath=None, type="image/jpeg")
    address = tus.new(len(photo), {"Upload-Metadata": said})
    assert tus.request("HEAD", address).headers["Upload-Metadata"] == said
    tus.patch(address, 0, photo)
    assert tus.state(address)["media"]["name"] == "Ferien – Äpfel 🍎.jpg"


def test_a_first_part_that_is_of_another_kind_of_file_is_refused_as_soon_as_it_shows(tus: Tus) -> None:
    address = tus.new(100_000)
    assert tus.patch(address, 0, b"\x89PNG").status_code == 204
    refused = tus.patch(address, 4, b"\r\n\x1a\n" + bytes(8000))
    assert refused.status_code == 415
    assert refused.get_json()["type"].rpartition(":")[2] == "unsupported-media"
    assert tus.api.leftovers() == []
    again = tus.patch(address, 4, b"")
    assert again.status_code == 415
    assert again.get_json()["detail"] == refused.get_json()["detail"]


def test_a_collision_is_told_by_the_last_part_and_to_whoever_asks_within_the_hour(tus: Tus) -> None:
    photo = picture(104, (200, 150))
    twin = twin_of(photo)
    tus.api.send_raw("/media?name=photo.jpg", photo)
    address = tus.new(len(twin))
    refused = tus.patch(address, 0, twin)
    assert refused.status_code == 409
    assert refused.get_json()["type"].rpartition(":")[2] == "media-id-collision"
    state = tus.state(address)
    assert state["state"] == "failed"
    assert state["media"] is None
    assert state["problem"] | {"requestId": None} == refused.get_json() | {"requestId": None}
    assert tus.request("HEAD", address).status_code == 409
    assert tus.api.leftovers() == []


def test_the_same_file_again_is_a_duplicate(tus: Tus) -> None:
    photo = picture(105)
    tus.api.send_raw("/media?name=photo.jpg", photo)
    address = tus.new(len(photo))
    assert tus.patch(address, 0, photo).status_code == 204
    assert tus.state(address)["duplicate"] is True
    assert tus.api.leftovers() == []


def test_a_file_that_comes_with_its_creation_is_taken_in_by_one_request(tus: Tus) -> None:
    photo = picture(106)
    created = tus.create(len(photo), body=photo)
    assert created.status_code == 201
    assert created.headers["Upload-Offset"] == str(len(photo))
    assert created.headers["Content-Location"] == f"/media/{media_id_of_bytes(photo)}"


def test_a_refusal_of_what_came_with_the_creation_tells_where_the_upload_is(tus: Tus) -> None:
    refused = tus.create(10, body=b"no picture")
    assert refused.status_code == 415
    assert tus.state(refused.headers["Location"])["problem"]["status"] == 415


def test_a_length_may_be_told_later_and_an_end_may_be_told_with_no_more_bytes(tus: Tus) -> None:
    photo = picture(107)
    address = tus.new(None)
    told = tus.request("HEAD", address).headers
    assert told["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in told
    tus.patch(address, 0, photo[:1000])
    tus.patch(address, 1000, photo[1000:])
    assert tus.state(address)["state"] == "receiving"
    last = tus.patch(address, len(photo), b"", {"Upload-Length": str(len(photo))})
    assert last.status_code == 204
    assert "Content-Location" in last.headers
    assert tus.api.leftovers() == []


def test_a_length_that_is_told_is_counted_against_the_room_and_cannot_be_changed(tus: Tus) -> None:
    address = tus.new(None)
    before = tus.api.services.storage.free_bytes(tus.api.images)
    assert tus.patch(address, 0, b"\xff\xd8\xff", {"Upload-Length": str(1 << 30)}).status_code == 204
    assert before - tus.api.services.storage.free_bytes(tus.api.images) >= (1 << 30) - (64 << 20)
    assert tus.request("HEAD", address).headers["Upload-Length"] == str(1 << 30)
    assert tus.patch(address, 3, b"", {"Upload-Length": "7"}).status_code == 400
    assert len(tus.api.leftovers()) == 1


def test_an_end_of_nothing_is_refused(tus: Tus) -> None:
    address = tus.new(None)
    assert tus.patch(address, 0, b"", {"Upload-Length": "0"}).status_code == 400
    assert tus.state(address)["problem"]["detail"] == "the file is empty"


def test_more_than_was_declared_is_refused_and_what_fits_may_still_come(tus: Tus) -> None:
    photo = picture(108)
    address = tus.new(len(photo))
    assert tus.patch(address, 0, photo + b"x").status_code == 413
    assert tus.patch(address, tus.offset(address), photo).status_code == 204


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"Upload-Offset": "x"}, 400),
        ({"Upload-Offset": ""}, 400),
        ({"Upload-Checksum": "md5 AAAA"}, 400),
        ({"Upload-Checksum": "sha1 ?"}, 400),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_part_that_cannot_be_understood_is_refused_and_counts_for_nothing(
    tus: Tus, told: dict[str, str], status: int
) -> None:
    address = tus.new(10)
    assert tus.patch(address, 0, b"\xff\xd8\xff", told).status_code == status
    assert tus.request("PATCH", address, {"Upload-Offset": "0"}, data=b"x").status_code == 415  # without its type
    assert tus.offset(address) == 0


def test_methods_that_a_proxy_refuses_may_come_as_a_post(tus: Tus) -> None:
    photo = picture(109)
    address = tus.new(len(photo))

    def post(method: str, **options: Any) -> TestResponse:
        fields = {"X-HTTP-Method-Override": method, "Upload-Offset": "0"}
        return tus.request("POST", address, fields, **options)

    head = post("HEAD")
    assert head.status_code == 200
    assert head.headers["Upload-Offset"] == "0"
    assert head.headers["Content-Length"] == "0"
    assert tus.state(address)["offset"] == 0
    assert post("PATCH", data=photo, content_type=PART).status_code == 204
    assert tus.state(address)["state"] == "complete"
    assert post("DELETE").status_code == 204
    gone = post("HEAD")
    assert gone.status_code == 404
    assert gone.get_json()["status"] == 404
    assert post("PUT").status_code == 405
    assert tus.request("POST", "/media", {"X-HTTP-Method-Override": "DELETE"}).status_code == 400


def test_the_address_is_relative_below_the_prefix_whatever_the_proxy_said_of_itself(make_api: MakeApi) -> None:
    tus = Tus(make_api(URL_PREFIX="/detections"))
    told = {"Upload-Metadata": metadata(), "Upload-Length": "10"}
    told |= {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "elsewhere.example", "Host": "inside:8000"}
    created = tus.request("POST", "/uploads", told)
    assert created.headers["Location"].startswith("/detections/uploads/")
    assert tus.offset(created.headers["Location"]) == 0
    fields = {"X-HTTP-Method-Override": "HEAD"}
    assert tus.request("POST", created.headers["Location"], fields).headers["Upload-Offset"] == "0"


def test_a_page_of_another_origin_may_send_and_read_what_clients_do(make_api: MakeApi) -> None:
    tus, origin = Tus(make_api(CORS_ORIGINS="https://app.example")), {"Origin": "https://app.example"}
    asked = {
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,tus-resumable,upload-offset",
    }
    preflight = tus.api.app.test_client().options("/uploads/x", headers=origin | asked)
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}
    sent = "Tus-Resumable,Upload-Length,Upload-Metadata,Upload-Offset,Upload-Concat,Upload-Defer-Length,Upload-Checksum"
    assert {*sent.lower().split(","), "x-http-method-override", "content-type", "authorization"} <= allowed
    created = tus.create(10, origin)
    exposed = {name.strip() for name in created.headers["Access-Control-Expose-Headers"].split(",")}
    assert {*created.headers.keys()} & {"Location", "Upload-Offset", "Upload-Expires", "Tus-Resumable"} <= exposed
    assert {"Upload-Length", "Upload-Metadata", "Upload-Concat", "Content-Location", "Tus-Max-Size"} <= exposed


def test_a_user_may_have_so_many_unfinished_uploads_and_others_as_many(make_api: MakeApi) -> None:
    api = make_api(UNFINISHED_UPLOADS_PER_USER="2")
    tus, photo = Tus(api), picture(110)
    first, _second = tus.new(len(photo)), tus.new(len(photo))
    refused = tus.create(len(photo))
    assert refused.status_code == 429
    assert refused.get_json()["type"].rpartition(":")[2] == "too-many-uploads"
    assert "Retry-After" in refused.headers
    assert len(api.leftovers()) == 2
    Tus(api, "bob").new(10)
    assert tus.patch(first, 0, photo).status_code == 204
    tus.new(10)


def test_the_answer_to_the_last_part_may_be_lost_and_asked_for_again(tus: Tus) -> None:
    photo = picture(111)
    address = tus.new(len(photo))
    where = tus.patch(address, 0, photo).headers["Content-Location"]
    head = tus.request("HEAD", address)
    assert head.headers["Upload-Offset"] == str(len(photo))
    assert head.headers["Content-Location"] == where
    assert tus.patch(address, 0, photo).status_code == 409
    again = tus.patch(address, len(photo), b"")
    assert again.status_code == 204
    assert again.headers["Content-Location"] == where


def test_a_run_begins_with_what_the_metadata_asks_for(tus: Tus) -> None:
    photo = picture(112)
    address = tus.new(len(photo), {"Upload-Metadata": metadata(detect=None, confidence="0.9", frameInterval="2")})
    assert tus.patch(address, 0, photo).status_code == 204
    run = tus.state(address)["media"]["run"]
    assert run["state"] in ("queued", "running", "done")
    finished = tus.api.send_raw("/detect?name=photo.jpg&confidence=0.9&frameInterval=2", photo)
    assert finished.get_json()["duplicate"] is True
    assert finished.get_json()["media"]["run"]["id"] == run["id"]


def test_what_no_decoder_takes_is_told_once_its_run_has_ended(tus: Tus) -> None:
    address = tus.new(len(RUNS_OUT), {"Upload-Metadata": metadata(detect="true")})
    assert tus.patch(address, 0, RUNS_OUT).status_code in (204, 422)
    tus.api.send_raw("/detect?name=photo.jpg", RUNS_OUT)  # waits for the run
    state = tus.state(address)
    assert state["state"] == "failed"
    assert state["problem"]["status"] == 422
    assert state["media"]["mediaStatus"] == 6
    again = tus.new(len(RUNS_OUT), {"Upload-Metadata": metadata(detect="true")})
    refused = tus.patch(again, 0, RUNS_OUT, {"Prefer": "wait=20"})
    assert refused.status_code == 422
    assert refused.get_json()["mediaId"] == state["media"]["id"]


def test_partial_uploads_become_one_in_the_order_that_the_final_one_names(tus: Tus) -> None:
    photo = picture(113)
    cuts = [0, 700, 1500, len(photo)]
    parts = [tus.new(end - start, {"Upload-Concat": "partial"}) for start, end in pairwise(cuts)]
    early = tus.request("POST", "/uploads", {"Upload-Metadata": metadata(), "Upload-Concat": f"final;{parts[0]}"})
    assert early.status_code == 400
    for number in (2, 0, 1):
        assert tus.patch(parts[number], 0, photo[cuts[number] : cuts[number + 1]]).status_code == 204
    assert tus.request("HEAD", parts[0]).headers["Upload-Concat"] == "partial"
    told = {"Upload-Metadata": metadata(), "Upload-Concat": f"final;{' '.join(parts)}"}
    final = tus.request("POST", "/uploads", told)
    assert final.status_code == 201
    assert final.headers["Upload-Offset"] == str(len(photo))
    assert tus.api.get(f"{final.headers['Content-Location']}/content", buffered=True).data == photo
    again = tus.request("POST", "/uploads", told)
    assert again.headers["Location"] == final.headers["Location"]
    assert tus.request("HEAD", final.headers["Location"]).headers["Upload-Concat"] == f"final;{' '.join(parts)}"
    assert tus.patch(final.headers["Location"], len(photo), b"").status_code == 403
    assert tus.offset(parts[1]) == 800
    assert tus.api.leftovers() == []


def test_a_refusal_of_a_final_upload_is_told_and_where_it_is(tus: Tus) -> None:
    part = tus.new(10, {"Upload-Concat": "partial"})
    tus.patch(part, 0, b"no picture")
    refused = tus.request("POST", "/uploads", {"Upload-Metadata": metadata(), "Upload-Concat": f"final;{part}"})
    assert refused.status_code == 415
    assert tus.state(refused.headers["Location"])["state"] == "failed"
    assert tus.api.leftovers() == []


def test_metrics_count_uploads_that_end_and_those_that_do_not(make_api: MakeApi) -> None:
    tus, photo = Tus(make_api()), picture(114)
    tus.patch(tus.new(len(photo)), 0, photo)
    tus.patch(tus.new(1000), 0, b"\xff\xd8\xff")
    tus.create(10, body=b"no picture")
    metrics = tus.api.get("/metrics").get_data(as_text=True)
    assert 'detections_uploads_total{outcome="stored"} 1.0' in metrics
    assert 'detections_uploads_total{outcome="unsupported-media"} 1.0' in metrics
    assert "detections_unfinished_uploads 1.0" in metrics
    assert "detections_unfinished_upload_bytes 997.0" in metrics
