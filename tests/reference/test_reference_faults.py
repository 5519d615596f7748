"""The reference annotations service fails as it is told to, once for each request that it is told to fail."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from app.demo.rules import Refusal
from tests.reference.conftest import Sender, assert_problem, record
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService

KEY = "0b9fb4f9-6a5f-4a3f-9c36-3d5f4ad1b111"
OTHER_ID = "f" * 16


def statuses(service: ReferenceService) -> list[tuple[int | None, bool]]:
    return [(entry["status"], entry["applied"]) for entry in service.log()]


def test_the_next_requests_fail_with_the_status_that_was_asked_for(service: ReferenceService, sender: Sender) -> None:
    command = {"fail": {"status": 503, "headers": {"Retry-After": "2"}, "times": 2}}
    assert requests.post(f"{service.url}/_control", json=command, timeout=10).json() == {"waiting": 2}
    for _ in range(2):
        failed = sender.create(key=KEY)
        assert_problem(failed, 503, "planted-failure")
        assert failed.headers["Retry-After"] == "2"
    assert sender.create(key=KEY).status_code == 201
    assert statuses(service) == [(503, False), (503, False), (201, True)]


def test_a_failure_waits_for_the_request_that_it_is_meant_for(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"status": 500, "match": {"method": "PUT", "mediaId": OTHER_ID}})
    service.control(fail={"status": 502, "match": {"mediaId": OTHER_ID}})
    assert sender.create().status_code == 201
    assert sender.create(record(OTHER_ID)).status_code == 502
    assert sender.status(2, seq=2).status_code == 200
    assert sender.create(record(OTHER_ID)).status_code == 201
    assert sender.status(2, seq=2, media_id=OTHER_ID).status_code == 500
    assert sender.status(2, seq=2, media_id=OTHER_ID).status_code == 200


def test_failures_happen_in_the_order_in_which_they_were_planted(service: ReferenceService, sender: Sender) -> None:
    for status in (500, 429, 502):
        service.control(fail={"status": status})
    assert [sender.create().status_code for _ in range(4)] == [500, 429, 502, 201]


def test_planted_failures_can_be_cleared(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"status": 503, "times": 100})
    service.control(clear=True)
    assert sender.create().status_code == 201


def test_an_answer_can_be_lost_after_the_change_was_made(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"close": True, "apply": True})
    with pytest.raises(requests.ConnectionError):
        sender.create(key=KEY)
    assert service.records() == [record()]
    assert sender.create(key=KEY).status_code == 201
    assert statuses(service) == [(None, True), (201, False)]
    assert check_log(service.log()) == []


def test_a_connection_can_be_closed_before_anything_is_changed(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"close": True})
    with pytest.raises(requests.ConnectionError):
        sender.create(key=KEY)
    assert service.records() == []
    assert statuses(service) == [(None, False)]
    assert sender.create(key=KEY).status_code == 201


def test_a_server_error_can_hide_a_change_that_was_made(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"status": 500, "apply": True})
    assert_problem(sender.create(), 500, "planted-failure")
    assert service.records() == [record()]
    assert statuses(service) == [(500, True)]


def test_a_refused_request_changes_nothing_even_when_it_is_to_be_applied(
    service: ReferenceService, sender: Sender
) -> None:
    service.control(fail={"status": 500, "apply": True})
    assert sender.create(record(name=None)).status_code == 500
    assert statuses(service) == [(500, False)]


def test_an_answer_can_be_delayed_and_the_request_is_seen_meanwhile(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"delay": 0.3})
    start = time.monotonic()
    with ThreadPoolExecutor(1) as sending:
        answer = sending.submit(sender.create)
        log = service.wait_for(lambda entries: len(entries) == 1)
        assert log[0]["status"] is None
        assert log[0]["answeredAfter"] is None
        assert answer.result().status_code == 201
    assert time.monotonic() - start >= 0.3
    assert statuses(service) == [(201, True)]


def test_a_delayed_request_takes_effect_after_the_sender_gave_up(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"delay": 0.3})
    sender.timeout = 0.1
    with pytest.raises(requests.Timeout):
        sender.create()
    assert service.records() == []
    service.wait_for(lambda entries: entries[0]["applied"])
    assert service.records() == [record()]


def test_a_key_that_is_being_worked_on_is_a_conflict_until_it_is_done(
    service: ReferenceService, sender: Sender
) -> None:
    key = str(uuid4())
    service.control(fail={"delay": 0.5})
    with ThreadPoolExecutor(1) as sending:
        first = sending.submit(sender.create, key=key)
        service.wait_for(lambda entries: len(entries) == 1)
        meanwhile = sender.create(key=key)
        assert meanwhile.status_code == 409
        assert meanwhile.json()["type"] == "/problems/key-at-work"
        assert first.result().status_code == 201
    assert sender.create(key=key).status_code == 201
    assert [applied for _status, applied in statuses(service)] == [True, False, False]


def test_an_answer_can_have_any_body_and_headers(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"status": 200, "body": "<html>", "headers": {"Content-Type": "text/html", "X-From": "proxy"}})
    answer = sender.create()
    assert answer.status_code == 200
    assert answer.text == "<html>"
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["X-From"] == "proxy"
    assert service.records() == []


def test_a_body_alone_replaces_the_one_of_an_answer_that_is_otherwise_right(
    service: ReferenceService, sender: Sender
) -> None:
    service.control(fail={"body": "{"})
    answer = sender.create()
    assert answer.status_code == 201
    assert answer.text == "{"
    assert service.records() == [record()]


def test_an_answer_can_break_off_before_its_declared_end(service: ReferenceService, sender: Sender) -> None:
    service.control(fail={"status": 200, "body": "short", "headers": {"Content-Length": "1000"}})
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        sender.create()


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_leaves_the_connection_usable(
    service: ReferenceService, sender: Sender, status: int
) -> None:
    service.control(fail={"status": status})
    assert sender.create().status_code == status
    assert sender.create().status_code == 201


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({}, None),
        ([], None),
        ({"fall": {"status": 503}}, None),
        ({"clear": False}, "clear"),
        ({"fail": {}}, "fail"),
        ({"fail": {"times": 3}}, "fail"),
        ({"fail": {"status": 503, "retries": 1}}, "retries"),
        ({"fail": {"status": "503"}}, "status"),
        ({"fail": {"status": 99}}, "status"),
        ({"fail": {"status": 503, "times": 0}}, "times"),
        ({"fail": {"delay": -1}}, "delay"),
        ({"fail": {"close": 1}}, "close"),
        ({"fail": {"close": True, "apply": "yes"}}, "apply"),
        ({"fail": {"body": 7}}, "body"),
        ({"fail": {"status": 503, "headers": {"Retry-After": 2}}}, "headers"),
        ({"fail": {"status": 503, "match": {"path": "/"}}}, "match"),
    ],
)
def test_a_wrong_control_command_is_refused_by_name_and_plants_nothing(
    service: ReferenceService, sender: Sender, command: Any, field: str | None
) -> None:
    answer = requests.post(f"{service.url}/_control", json=command, timeout=10)
    assert_problem(answer, 422, "invalid-command", field)
    assert sender.create().status_code == 201


def test_a_wrong_command_given_directly_is_refused_too(service: ReferenceService) -> None:
    with pytest.raises(Refusal, match="'fail' must be"):
        service.control(fail={"times": 2})
