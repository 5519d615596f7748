"""The reference annotations service keeps the receiver's side of the contract, over real HTTP."""

from typing import Any
from uuid import uuid4

import pytest

from tests.reference.conftest import MEDIA_ID, Sender, assert_problem, record, token
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService

FIELDS = ["id", "name", "path", "mediaType", "mediaStatus", "userId"]
KEY = "0b9fb4f9-6a5f-4a3f-9c36-3d5f4ad1b111"


def test_a_create_is_stored_and_answered_with_the_record(service: ReferenceService, sender: Sender) -> None:
    answer = sender.create()
    assert answer.status_code == 201
    assert answer.json() == record()
    assert sender.send("GET", f"/api/media/{MEDIA_ID}").json() == record()
    assert service.records() == [record()]


def test_media_are_listed_in_the_order_of_arrival(sender: Sender) -> None:
    ids = [f"{number:016x}" for number in (3, 1, 2)]
    for media_id in ids:
        sender.create(record(media_id))
    assert [media["id"] for media in sender.send("GET", "/api/media").json()] == ids


def test_an_unknown_media_is_not_found(sender: Sender) -> None:
    assert_problem(sender.send("GET", f"/api/media/{MEDIA_ID}"), 404, "unknown-media")


@pytest.mark.parametrize("field", FIELDS)
def test_a_create_without_one_of_its_fields_is_refused_by_name(
    service: ReferenceService, sender: Sender, field: str
) -> None:
    body = record()
    del body[field]
    assert_problem(sender.create(body), 422, "invalid-body", field)
    assert service.records() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "0123456789ABCDEF"),
        ("id", "V0123456789abcdef"),
        ("id", "0123456789abcde"),
        ("id", 81985529216486895),
        ("name", "n" * 256),
        ("name", None),
        ("name", "folder/holiday.jpg"),
        ("name", "line\nbreak.jpg"),
        ("name", "gpj.\u202eyadiloh"),
        ("name", "\ud800.jpg"),
        ("name", "Cafe\u0301.jpg"),
        ("path", "images/0123456789abcdef.jpg"),
        ("path", ["/srv"]),
        ("path", "/srv/\ud800.jpg"),
        ("mediaType", "image"),
        ("mediaType", "Audio"),
        ("mediaType", {}),
        ("mediaStatus", 2),
        ("mediaStatus", True),
        ("mediaStatus", 1.0),
        ("mediaStatus", "1"),
        ("userId", ""),
        ("userId", 7),
        ("owner", "ada"),
    ],
)
def test_a_create_with_a_wrong_or_unknown_field_is_refused_by_name(
    service: ReferenceService, sender: Sender, field: str, value: Any
) -> None:
    assert_problem(sender.create(record(**{field: value})), 422, "invalid-body", field)
    assert service.records() == []


@pytest.mark.parametrize("name", ["n" * 255, "Café 写真.jpg", "back\\slash.jpg", "C:holiday.jpg"])
def test_a_name_of_any_harmless_characters_is_accepted(sender: Sender, name: str) -> None:
    assert sender.create(record(name=name)).json()["name"] == name


@pytest.mark.parametrize("body", [[], "text", 1, [record()]])
def test_a_body_that_is_no_object_is_refused(sender: Sender, body: Any) -> None:
    assert_problem(sender.create(body), 422, "invalid-body")


@pytest.mark.parametrize("raw", [b"", b'{"id": ', b"\xff\xfe", b"[" * 60_000, b"\xef\xbb\xbf{}"])
def test_a_body_that_is_no_json_is_refused(sender: Sender, raw: bytes) -> None:
    headers = {"Authorization": f"Bearer {token()}", "Idempotency-Key": KEY, "Content-Type": "application/json"}
    answer = sender.session.post(f"{sender.url}/api/media", data=raw, headers=headers, timeout=10)
    assert_problem(answer, 400, "malformed-json")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json5", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(sender: Sender, content_type: str | None) -> None:
    assert_problem(sender.create(**{"Content-Type": content_type}), 415, "unsupported-media-type")


@pytest.mark.parametrize("key", [None, "", "1", "not-a-uuid", f"{{{KEY}}}", KEY.replace("-", ""), f"{KEY}, {KEY}"])
def test_a_missing_or_invalid_idempotency_key_is_refused(service: ReferenceService, sender: Sender, key: Any) -> None:
    assert_problem(sender.create(**{"Idempotency-Key": key}), 400, "invalid-idempotency-key")
    assert service.records() == []
    sender.create()
    assert_problem(sender.status(2, seq=2, **{"Idempotency-Key": key}), 400, "invalid-idempotency-key")
    assert service.records() == [record()]


def test_the_same_create_again_gets_the_same_answer_and_stores_nothing(
    service: ReferenceService, sender: Sender
) -> None:
    first = sender.create(key=KEY)
    sender.status(2, seq=2)
    again = sender.create(key=KEY.upper())
    assert again.status_code == first.status_code
    assert again.content == first.content
    assert service.records() == [record(mediaStatus=2)]


def test_a_second_create_under_another_key_is_a_conflict(service: ReferenceService, sender: Sender) -> None:
    sender.create()
    assert_problem(sender.create(record(name="other.jpg")), 409, "media-exists")
    assert service.records() == [record()]


def test_a_key_used_for_another_request_is_refused(service: ReferenceService, sender: Sender) -> None:
    sender.create(key=KEY)
    assert_problem(sender.create(record("f" * 16), key=KEY), 422, "idempotency-key-reused")
    assert_problem(sender.status(2, seq=2, key=KEY), 422, "idempotency-key-reused")
    assert service.records() == [record()]


@pytest.mark.parametrize("statuses", [[2, 3], [2, 6], [2, 3, 2, 6, 2, 3]])
def test_allowed_statuses_are_taken_over(service: ReferenceService, sender: Sender, statuses: list[int]) -> None:
    sender.create()
    for seq, status in enumerate(statuses, start=2):
        answer = sender.status(status, seq=seq)
        assert answer.status_code == 200
        assert answer.json() == record(mediaStatus=status)
    assert service.records() == [record(mediaStatus=statuses[-1])]


@pytest.mark.parametrize(
    ("before", "status"), [([], 3), ([], 6), ([2], 2), ([2, 3], 3), ([2, 3], 6), ([2, 6], 3), ([2, 6], 6)]
)
def test_a_status_out_of_order_is_a_conflict(
    service: ReferenceService, sender: Sender, before: list[int], status: int
) -> None:
    sender.create()
    for seq, earlier in enumerate(before, start=2):
        sender.status(earlier, seq=seq)
    unchanged = service.records()
    assert_problem(sender.status(status, seq=len(before) + 2), 409, "status-not-allowed")
    assert service.records() == unchanged


@pytest.mark.parametrize("status", [1, 4, 5, 0, True, {"mediaStatus": 2.0}, {"mediaStatus": "2"}])
def test_a_status_that_is_never_sent_is_refused_by_name(service: ReferenceService, sender: Sender, status: Any) -> None:
    sender.create()
    assert_problem(sender.status(status, seq=2), 422, "invalid-body", "mediaStatus")
    assert service.records() == [record()]


def test_a_status_with_an_unknown_field_is_refused_by_name(sender: Sender) -> None:
    sender.create()
    assert_problem(sender.status({"mediaStatus": 2, "at": "now"}, seq=2), 422, "invalid-body", "at")


def test_a_status_of_an_unknown_media_is_not_found_and_may_be_sent_again(sender: Sender) -> None:
    assert_problem(sender.status(2, seq=2, key=KEY), 404, "unknown-media")
    sender.create()
    assert sender.status(2, seq=2, key=KEY).status_code == 200


@pytest.mark.parametrize("seq", [None, "", "0", "-1", "1.0", "one", "01", "9" * 30])
def test_a_missing_or_invalid_sequence_number_is_refused(sender: Sender, seq: Any) -> None:
    assert_problem(sender.create(**{"X-Outbox-Seq": seq}), 400, "invalid-sequence-number")
    sender.create()
    assert_problem(sender.status(2, seq=2, **{"X-Outbox-Seq": seq}), 400, "invalid-sequence-number")


def test_a_client_of_its_own_may_create_without_a_sequence_number(sender: Sender) -> None:
    own = {"X-Outbox-Seq": None, "Authorization": f"Bearer {token(act=None)}"}
    assert sender.create(record(userId="bob"), **own).status_code == 201
    assert sender.status(2, seq=1).json()["mediaStatus"] == 2


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_status_numbered_no_higher_than_the_last_taken_is_ignored(
    service: ReferenceService, sender: Sender, seq: int
) -> None:
    sender.create()
    sender.status(2, seq=2)
    sender.status(3, seq=3)
    answer = sender.status(2, seq=seq)
    assert answer.status_code == 200
    assert answer.json() == {"ignored": True}
    assert service.records() == [record(mediaStatus=3)]


def test_the_same_status_again_gets_the_same_answer_and_changes_nothing(
    service: ReferenceService, sender: Sender
) -> None:
    sender.create()
    first = sender.status(2, seq=2, key=KEY)
    sender.status(3, seq=3)
    again = sender.status(2, seq=2, key=KEY)
    assert again.status_code == first.status_code
    assert again.content == first.content
    assert service.records() == [record(mediaStatus=3)]


def test_a_day_of_a_media_by_the_contract_leaves_a_clean_log(service: ReferenceService, sender: Sender) -> None:
    for message in (1, 1, 2, 2, 3):
        key = f"0b9fb4f9-6a5f-4a3f-9c36-{message:012}"
        answer = sender.create(key=key) if message == 1 else sender.status(message, seq=message, key=key)
        assert answer.ok
    assert check_log(service.log()) == []


def test_a_reckless_sender_is_found_in_the_log(service: ReferenceService, sender: Sender) -> None:
    sender.status(2, seq=2, key=KEY)
    sender.create(key=KEY)
    sender.status(2, seq=4, key=str(uuid4()))
    violations = "\n".join(check_log(service.log()))
    assert "before its create" in violations
    assert "was used for another request" in violations
    assert "without [2, 3]" in violations
