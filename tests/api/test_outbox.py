"""The outbox over HTTP, for administrators only: reading and repairing as the commands do."""

import json
import threading
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.database import Topic
from app.media.hashing import media_id_of_bytes
from tests.api.conftest import Api, MakeApi, Untouched, picture
from tests.eventually import eventually
from tests.outbox.refusals import refused_for_long
from tests.reference.service import ReferenceService
from tests.system.service import token

UNKNOWN = "0123456789abcdef"
CALLS = [
    ("GET", "/outbox"),
    ("GET", "/outbox/throughput"),
    ("GET", "/outbox/messages"),
    ("GET", f"/outbox/media/{UNKNOWN}"),
    ("POST", "/outbox/retry"),
    ("POST", f"/outbox/media/{UNKNOWN}/skip"),
    ("POST", f"/outbox/media/{UNKNOWN}/resend"),
]


def ask(api: Api, method: str, path: str, **options: Any) -> TestResponse:
    """Send an administrator's request."""
    headers = {"Authorization": f"Bearer {token('root', roles=['admin'])}"} | options.pop("headers", {})
    return api.request(method, path, headers=headers, **options)


def told(api: Api, path: str, **query: Any) -> Any:
    answer = ask(api, "GET", path, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def retry(api: Api, **body: Any) -> int:
    answer = ask(api, "POST", "/outbox/retry", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    count: int = answer.json["retried"]
    return count


def parked(api: Api, annotations: ReferenceService, number: int) -> str:
    """Return a media item whose create was refused."""
    media_id = media_id_of_bytes(picture(number))
    annotations.control(fail={"status": 422, "times": 2, "match": {"mediaId": media_id}})
    api.upload("/media", picture(number))
    refused_for_long(api.services.settings.database.url, media_id)
    eventually(lambda: told(api, f"/outbox/media/{media_id}")["parkedAt"] is not None)
    return media_id


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_it_is_for_administrators_alone_and_no_body_is_read_before(api: Api, method: str, path: str) -> None:
    for headers, status, name in (({}, 403, "forbidden"), ({"Authorization": "Bearer x"}, 401, "unauthorized")):
        body = Untouched(b'{"all": true}')
        answer = api.request(method, path, headers=headers, environ_overrides=body.environ)
        assert answer.status_code == status
        assert answer.json is not None
        assert answer.json["type"].endswith(name)
        assert not body.was_read


def test_who_administers_is_a_setting(make_api: MakeApi) -> None:
    api = make_api(JWT_ADMIN_CLAIM="groups=cn=operators")
    for claims, status in (
        ({"groups": ["cn=operators"]}, 200),
        ({"groups": "users cn=operators"}, 200),
        ({"groups": ["operators"]}, 403),
        ({"roles": ["admin"]}, 403),
    ):
        headers = {"Authorization": f"Bearer {token('ada', **claims)}"}
        assert api.get("/outbox", headers=headers).status_code == status, claims


def test_what_waits_is_told_without_an_annotations_service_too(make_api: MakeApi) -> None:
    api = make_api()
    assert told(api, "/outbox")["oldestAgeSeconds"] is None
    api.upload("/detect", picture(1))
    status = told(api, "/outbox")
    assert status["pending"] == 3
    assert status["parked"] == 0
    assert status["deliveredLastHour"] == 0
    assert 0 <= status["oldestAgeSeconds"] < 60
    assert status["oldestAgeSeconds"] == round(status["oldestAgeSeconds"], 3)
    assert status["circuit"] == {"state": "closed", "since": None, "retryAt": None, "reason": None}
    assert status["held"] == []


def test_an_open_circuit_is_told_with_its_reason(make_api: MakeApi, annotations: ReferenceService) -> None:
    annotations.control(fail={"status": 503, "times": 1000})
    api = make_api(annotations)
    api.upload("/media", picture(2))
    for number in range(40, 44):
        api.upload("/media", picture(number))
    eventually(lambda: told(api, "/outbox")["circuit"]["state"] != "closed")
    circuit = told(api, "/outbox")["circuit"]
    assert "503" in circuit["reason"]
    assert circuit["retryAt"].endswith("Z")
    assert circuit["since"].endswith("Z")


def test_a_held_user_is_told_with_the_reason_and_what_waits(make_api: MakeApi, annotations: ReferenceService) -> None:
    annotations.control(fail={"status": 403, "times": 1000})
    api = make_api(annotations)
    api.upload("/media", picture(44))
    eventually(lambda: told(api, "/outbox")["held"] != [])
    [held] = told(api, "/outbox")["held"]
    assert held["waiting"] == 1
    assert "403" in held["reason"]
    assert held["since"] < held["until"]
    assert told(api, "/outbox")["circuit"]["state"] == "closed"


def test_messages_are_listed_by_state_and_turned_over(make_api: MakeApi) -> None:
    api = make_api()
    for number in range(3, 6):
        api.upload("/media", picture(number))
    first = told(api, "/outbox/messages", state="pending", limit=2)
    rest = told(api, "/outbox/messages", state="pending", limit=2, cursor=first["nextCursor"])
    assert [len(first["items"]), len(rest["items"]), rest["nextCursor"]] == [2, 1, None]
    shown = [item["mediaId"] for item in first["items"] + rest["items"]]
    assert shown == [media_id_of_bytes(picture(number)) for number in range(3, 6)]
    assert first["items"][0]["payload"]["mediaStatus"] == 1
    assert told(api, "/outbox/messages") == told(api, "/outbox/messages", state="pending")
    assert told(api, "/outbox/messages", state="delivered") == {"items": [], "nextCursor": None}
    for query in ({"state": "lost"}, {"limit": 0}, {"limit": 501}, {"cursor": first["nextCursor"], "state": "parked"}):
        assert ask(api, "GET", "/outbox/messages", query_string=query).status_code == 400


def test_a_refused_media_is_shown_retried_and_then_delivered_at_once(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations)
    media_id = parked(api, annotations, 6)
    shown = told(api, f"/outbox/media/{media_id}")
    assert "422" in shown["parkReason"]
    [message] = shown["messages"]
    assert message["state"] == "parked"
    assert [(one["status"], one["verdict"]) for one in message["attempts"]] == [(422, "refused")] * 2
    assert [item["mediaId"] for item in told(api, "/outbox/messages", state="parked")["items"]] == [media_id]
    assert retry(api, mediaIds=[media_id, UNKNOWN]) == 1
    annotations.wait_for(lambda entries: any(entry["applied"] for entry in entries))
    eventually(lambda: told(api, "/outbox")["deliveredLastHour"] == 1)
    assert told(api, "/outbox/messages", state="delivered")["items"][0]["outcome"] == "accepted"
    minutes = told(api, "/outbox/throughput")["minutes"]
    assert len(minutes) == 60
    assert sum(minute["delivered"] for minute in minutes[-2:]) == 1
    assert [minute["at"] for minute in minutes] == sorted(minute["at"] for minute in minutes)


def test_all_or_those_of_one_reason_are_retried(make_api: MakeApi, annotations: ReferenceService) -> None:
    api = make_api(annotations)
    for number in (7, 8):
        parked(api, annotations, number)
    assert retry(api, reason="no reason has this") == 0
    annotations.control(fail={"status": 422, "times": 1000})
    assert retry(api, reason="422") == 2
    for number in (7, 8):
        refused_for_long(api.services.settings.database.url, media_id_of_bytes(picture(number)))
    eventually(lambda: told(api, "/outbox")["parked"] == 2)
    assert retry(api, all=True) == 2


def test_a_skip_drops_the_head_of_what_is_parked_and_of_nothing_else(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations)
    media_id = parked(api, annotations, 9)
    skipped = ask(api, "POST", f"/outbox/media/{media_id}/skip")
    assert skipped.status_code == 200
    assert skipped.json == told(api, f"/outbox/media/{media_id}")
    assert skipped.json is not None
    assert skipped.json["messages"][0]["outcome"] == "skipped"
    assert skipped.json["parkedAt"] is None
    again = ask(api, "POST", f"/outbox/media/{media_id}/skip")
    assert again.status_code == 409
    assert again.json is not None
    assert again.json["type"].endswith("not-parked")


def test_one_media_is_said_again_where_the_other_side_has_lost_it(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations)
    media_id = media_id_of_bytes(picture(20))
    api.upload("/media", picture(20))
    eventually(lambda: told(api, f"/outbox/media/{media_id}")["ackedSeq"] == 1)
    path = f"/outbox/media/{media_id}/resend"
    assert ask(api, "POST", path).json == {"mediaId": media_id, "messages": 0, "reason": None}
    annotations.forget([media_id])
    reason = "GET says that it is not there"
    assert ask(api, "POST", path).json == {"mediaId": media_id, "messages": 1, "reason": reason}
    eventually(lambda: told(api, f"/outbox/media/{media_id}")["ackedSeq"] == 2)
    assert [record["id"] for record in annotations.records()] == [media_id]
    annotations.control(fail={"status": 405, "times": 1, "match": {"method": "GET"}})
    again = ask(api, "POST", path)
    assert again.json is not None
    assert again.json["messages"] == 1, "what nobody may look at is said again for whoever asks"
    annotations.stop()
    assert ask(api, "POST", path).status_code == 503


def test_a_media_is_not_said_again_to_nobody(api: Api) -> None:
    api.upload("/media", picture(21))
    answer = ask(api, "POST", f"/outbox/media/{media_id_of_bytes(picture(21))}/resend")
    assert answer.status_code == 503
    assert "ANNOTATIONS_URL" in answer.text
    assert ask(api, "POST", f"/outbox/media/{UNKNOWN}/resend").status_code in (404, 503)


def test_a_retry_and_a_skip_wake_the_dispatcher(make_api: MakeApi, annotations: ReferenceService) -> None:
    api = make_api(annotations)
    woken = threading.Event()
    api.services.database.subscribe(Topic.MESSAGES, woken.set)
    for number, repair in (
        (11, lambda media_id: ask(api, "POST", f"/outbox/media/{media_id}/skip")),
        (12, lambda media_id: retry(api, mediaIds=[media_id])),
    ):
        media_id = parked(api, annotations, number)
        woken.clear()
        repair(media_id)
        assert woken.is_set()


@pytest.mark.parametrize("media_id", [UNKNOWN, "none", "%00", "V0123456789abcdef"])
def test_a_media_without_messages_is_not_found(api: Api, media_id: str) -> None:
    assert ask(api, "GET", f"/outbox/media/{media_id}").status_code == 404
    assert ask(api, "POST", f"/outbox/media/{media_id}/skip").status_code == 404


BODIES: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a text": b'"all"',
    "no member": b"{}",
    "false": b'{"all": false}',
    "one": b'{"all": 1}',
    "two ways": b'{"all": true, "mediaIds": []}',
    "an unknown member": b'{"all": true, "dryRun": true}',
    "a member twice": b'{"all": true, "all": true}',
    "no ids": b'{"mediaIds": []}',
    "not a list": b'{"mediaIds": "0123456789abcdef"}',
    "no id": b'{"mediaIds": ["0123456789ABCDEF"]}',
    "a number for an id": b'{"mediaIds": [1]}',
    "too many ids": json.dumps({"mediaIds": [UNKNOWN] * 1001}).encode(),
    "an empty reason": b'{"reason": ""}',
    "a NUL": b'{"reason": "a\\u0000"}',
    "half a character": b'{"reason": "\\ud800"}',
    "a long reason": json.dumps({"reason": "x" * 501}).encode(),
    "not a number": b'{"reason": NaN}',
    "no UTF-8": b'{"reason": "\xff"}',
    "deep": b'{"reason": ' + b"[" * 9 + b"]" * 9 + b"}",
    "very deep": b"[" * 60_000,
    "a very long number": b'{"all": ' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_says_something_else_is_refused(api: Api, body: bytes) -> None:
    answer = ask(api, "POST", "/outbox/retry", data=body, content_type="application/json")
    assert answer.status_code == 400, answer.text
    assert answer.json is not None
    assert answer.json["type"].endswith("malformed-upload")


def test_a_body_must_be_json_and_small(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(api, "POST", "/outbox/retry", data=b'{"all": true}', content_type=kind).status_code == 400
    large = Untouched(b'{"reason": "' + b"x" * 70_000 + b'"}')
    refused = ask(api, "POST", "/outbox/retry", content_type="application/json", environ_overrides=large.environ)
    assert refused.status_code == 413
    assert not large.was_read
