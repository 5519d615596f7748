"""Who may call the reference annotations service, and what it tells of the calls: tokens, request log, problems."""

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from app.demo.reference_store import Arrival, ReferenceStore
from tests.reference.conftest import MEDIA_ID, SECRET, Sender, assert_problem, record, token
from tests.reference.service import ReferenceService

KEY = "0b9fb4f9-6a5f-4a3f-9c36-3d5f4ad1b111"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        f"Basic {token()}",
        f"Bearer {token(secret='another secret, which is long enough')}",
        f"Bearer {token(exp=None)}",
        f"Bearer {token(exp=int(time.time()) - 60)}",
        f"Bearer {token(exp=int(time.time()) + 3600)}",
        f"Bearer {token(sub=None)}",
        f"Bearer {token(sub='')}",
        f"Bearer {token(act={'sub': 'somebody'})}",
        f"Bearer {token(act='detections')}",
    ],
)
def test_no_call_works_without_an_acceptable_token(
    service: ReferenceService, sender: Sender, authorization: Any
) -> None:
    headers = {"Authorization": authorization}
    assert_problem(sender.create(**headers), 401, "unauthorized")
    assert_problem(sender.status(2, seq=2, **headers), 401, "unauthorized")
    assert_problem(sender.send("GET", "/api/media", headers=headers), 401, "unauthorized")
    assert_problem(sender.send("GET", f"/api/media/{MEDIA_ID}", headers=headers), 401, "unauthorized")
    assert service.records() == []


def test_a_delegated_token_creates_for_its_own_identity_only(service: ReferenceService, sender: Sender) -> None:
    answer = sender.create(Authorization=f"Bearer {token(sub='bob')}")
    assert_problem(answer, 403, "other-identity", "userId")
    assert service.records() == []


def test_a_token_of_a_client_itself_may_last_longer(sender: Sender) -> None:
    long = token(act=None, exp=int(time.time()) + 3600)
    assert sender.create(Authorization=f"Bearer {long}").status_code == 201


def test_a_static_token_is_accepted_only_where_it_is_configured(tmp_path: Path, sender: Sender) -> None:
    static = {"Authorization": "Bearer machine-token"}
    assert_problem(sender.create(**static), 401, "unauthorized")
    with ReferenceService(tmp_path / "other.db", SECRET, static_token="machine-token") as other:
        elsewhere = Sender(other.url, sender.session)
        assert elsewhere.create(**static).status_code == 201
        assert elsewhere.status(2, seq=2).status_code == 200
        assert_problem(elsewhere.create(Authorization="Bearer machine-tokens"), 401, "unauthorized")


def test_identity_claim_audience_and_issuer_are_as_configured(tmp_path: Path, sender: Sender) -> None:
    configured: dict[str, Any] = {"identity_claim": "email", "audience": "annotations", "issuer": "suite"}
    right: dict[str, Any] = {"email": "ada", "sub": "17", "aud": "annotations", "iss": "suite"}
    with ReferenceService(tmp_path / "other.db", SECRET, **configured) as other:
        elsewhere = Sender(other.url, sender.session)
        for claim in ("email", "aud", "iss"):
            for wrong in (None, "other"):
                refused = elsewhere.create(Authorization=f"Bearer {token(**right | {claim: wrong})}")
                assert refused.status_code == (403 if (claim, wrong) == ("email", "other") else 401)
        assert elsewhere.create(Authorization=f"Bearer {token(**right)}").status_code == 201


def test_every_request_is_logged_as_it_arrived(service: ReferenceService, sender: Sender) -> None:
    before = time.time()
    sender.create(key=KEY, **{"X-Request-Id": "r-1"})
    sender.status(3, seq=2)
    sender.status(2, seq=3, Authorization=None)
    sender.send("GET", f"/api/media/{MEDIA_ID}")
    log = requests.get(f"{service.url}/_log", timeout=10).json()
    assert log == service.log()
    assert [(e["index"], e["method"], e["status"], e["applied"], e["seq"]) for e in log] == [
        (1, "POST", 201, True, 1),
        (2, "PUT", 409, False, 2),
        (3, "PUT", 401, False, 3),
        (4, "GET", 200, False, None),
    ]
    assert {e["mediaId"] for e in log} == {MEDIA_ID}
    assert log[0]["path"] == "/api/media"
    assert log[0]["body"] == record()
    assert log[0]["idempotencyKey"] == KEY
    assert log[0]["requestId"] == "r-1"
    assert log[1]["path"] == f"/api/media/{MEDIA_ID}/status"
    assert log[1]["body"] == {"mediaStatus": 3}
    assert before <= log[0]["at"] <= log[-1]["at"] <= time.time()


def test_repeated_and_ignored_messages_are_logged_as_not_applied(service: ReferenceService, sender: Sender) -> None:
    sender.create(key=KEY)
    sender.create(key=KEY)
    sender.status(2, seq=1)
    assert [entry["applied"] for entry in service.log()] == [True, False, False]


def test_the_log_can_be_read_on_from_an_index(service: ReferenceService, sender: Sender) -> None:
    for _ in range(3):
        sender.send("GET", "/api/media")
    rest = requests.get(f"{service.url}/_log?after=2", timeout=10).json()
    assert [entry["index"] for entry in rest] == [3]
    assert requests.get(f"{service.url}/_log?after=3", timeout=10).json() == []
    assert_problem(requests.get(f"{service.url}/_log?after=x", timeout=10), 400, "invalid-parameter", "after")


def test_wrong_methods_addresses_and_sizes_are_answered_with_a_problem(
    service: ReferenceService, sender: Sender
) -> None:
    assert_problem(sender.send("DELETE", "/api/media"), 405, "method-not-allowed")
    assert_problem(sender.send("GET", "/elsewhere"), 404, "not-found")
    assert_problem(sender.create(record(name="n" * 70_000)), 413, "request-entity-too-large")
    assert [entry["status"] for entry in service.log()] == [405, 404, 413]


def test_a_problem_carries_the_request_id_that_came(sender: Sender) -> None:
    assert sender.create({}, **{"X-Request-Id": "r-7"}).json()["requestId"] == "r-7"


def test_a_request_is_decided_when_it_is_applied_whoever_arrives_before_its_answer(
    tmp_path: Path,
) -> None:
    store = ReferenceStore(tmp_path / "annotations.db")
    arrival = Arrival("POST", "/api/media", MEDIA_ID, 1, 1, KEY, None, record())
    first, second = store.arrived(arrival), store.arrived(arrival)
    store.create(first, KEY, record(), 1)
    store.arrived(arrival)
    store.answered(first, 201)
    store.answered(second, 201)
    assert [entry["answeredAfter"] for entry in store.log()] == [2, 3, None]
    store.close()
