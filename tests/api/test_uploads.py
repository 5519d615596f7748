"""Resumable uploads by tus 1.0.0, request by request, as contract §7 has them."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.api.conftest import Api, picture

PART = "application/offset+octet-stream"


def metadata(**values: str | None) -> str:
    """`Upload-Metadata` with these pairs; None stands for a key without a value."""
    pairs = {"filename": "photo.jpg", "detect": "false"} | values
    return ",".join(
        key if value is None else f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )


class Tus:
    """Requests of a client that speaks tus 1.0.0."""

    def __init__(self, api: Api, user: str = "ada") -> None:
        self.api = api
        self.user = user

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> TestResponse:
        spoken = {"Tus-Resumable": "1.0.0"} | (headers or {})
        return self.api.request(method, path, headers=spoken, user=self.user, **options)

    def create(
        self, length: int | None, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> TestResponse:
        fields = {"Upload-Metadata": metadata()} | (headers or {})
        fields |= {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        if body is None:
            return self.request("POST", "/uploads", fields)
        return self.request("POST", "/uploads", fields, data=body, content_type=PART)

    def new(self, length: int | None, headers: dict[str, str] | None = None) -> str:
        """The address of a new upload."""
        created = self.create(length, headers)
        assert created.status_code == 201, created.get_data(as_text=True)
        return created.headers["Location"]

    def patch(self, address: str, offset: int, body: bytes, headers: dict[str, str] | None = None) -> TestResponse:
        fields = {"Upload-Offset": str(offset)} | (headers or {})
        return self.request("PATCH", address, fields, data=body, content_type=PART)

    def offset(self, address: str) -> int:
        """What HEAD says."""
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
    assert (first.status_code, first.headers["Upload-Offset"], first.data) == (204, "1000", b"")
    assert tus.offset(address) == 1000
    assert tus.patch(address, 1000, photo[1000:1001]).headers["Upload-Offset"] == "1001"
    last = tus.patch(address, 1001, photo[1001:])
    assert (last.status_code, last.headers["Upload-Offset"]) == (204, str(len(photo)))
    where = last.headers["Content-Location"]
    assert tus.api.get(f"{where}/content", buffered=True).data == photo
    again = tus.api.send_raw("/media?name=photo.jpg", photo)
    assert (again.status_code, again.get_json()["duplicate"]) == (200, True)
    assert again.get_json()["media"]["checksum"] == tus.api.get(where).get_json()["checksum"]
    state = tus.state(address)
    assert (state["state"], state["offset"], state["length"]) == ("complete", len(photo), len(photo))
    assert (state["media"]["id"], state["duplicate"], state["problem"]) == (where.rpartition("/")[2], False, None)
    assert tus.offset(address) == len(photo)
    assert tus.api.leftovers() == []


def test_a_part_that_does_not_follow_is_refused_with_the_right_offset(tus: Tus) -> None:
    address = tus.new(100)
    tus.patch(address, 0, b"\xff\xd8\xff" + bytes(7))
    for wrong in (0, 9, 11):
        refused = tus.patch(address, wrong, b"x")
        assert (refused.status_code, refused.headers["Upload-Offset"]) == (409, "10")
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
    assert (wrong.status_code, tus.offset(address)) == (460, 500)
    rest = base64.b64encode(hashlib.sha256(photo[500:]).digest()).decode()
    assert tus.patch(address, 500, photo[500:], {"Upload-Checksum": f"sha256 {rest}"}).status_code == 204
    assert tus.state(address)["state"] == "complete"
