"""The classification of every answer, over real HTTP, and the transition of its stream."""

import json
from dataclasses import replace
from typing import Any

import pytest

from app.annotations.tokens import MintedTokens
from app.outbox.circuit import EndpointState
from app.outbox.decide import Action, decide
from app.outbox.decide_endpoint import DecisionContext
from app.outbox.messages import Attempt, Claim, Classification, MessageKind, Outcome, Reference, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy
from tests.annotations.conftest import MEDIA, MakeClient, message
from tests.annotations.servers import Peer, Server, Step, answer

CREATE, STATUS = MessageKind.CREATE, MessageKind.STATUS
DELIVERED, RETRY, LIMITED = Verdict.DELIVERED, Verdict.RETRY, Verdict.RETRY_LIMITED
REFUSED, PARK, HOLD, UNFIT = Verdict.REFUSED, Verdict.PARK, Verdict.HOLD, Verdict.UNFIT
NOW = 1_800_000_000.0
OTHER = Reference("fedcba9876543210", "bob")

SAME_FOR_BOTH = (
    dict.fromkeys((200, 201, 202, 204), DELIVERED)
    | dict.fromkeys((401, 403, 429), HOLD)
    | dict.fromkeys((300, 301, 302, 303, 304, 307, 308, 503), UNFIT)
    | dict.fromkeys((400, 402, 406, 412, 413, 414, 415, 418, 422, 423, 451, 499), REFUSED)
    | dict.fromkeys((408, 425, 500, 502, 504, 507, 599, 600, 999), RETRY)
)
TABLE = [
    *((kind, status, verdict) for kind in MessageKind for status, verdict in SAME_FOR_BOTH.items()),
    *((CREATE, status, UNFIT) for status in (404, 405, 501)),
    (CREATE, 410, REFUSED),
    (STATUS, 404, LIMITED),
    (STATUS, 405, REFUSED),
    (STATUS, 410, DELIVERED),
    (STATUS, 501, RETRY),
]
STREAM = {
    DELIVERED: Action.DELIVERED, RETRY: Action.RETRY, LIMITED: Action.RETRY, REFUSED: Action.RETRY,
    PARK: Action.PARK, HOLD: Action.RETRY, UNFIT: Action.RETRY,
}  # fmt: skip


def delivered_to(server: Server, make_client: MakeClient, kind: MessageKind, **changes: Any) -> Classification:
    options = {"tokens": MintedTokens("k" * 32)}
    with server:
        return make_client(server.url, **options).deliver(message(kind, **changes))


def comes_to(found: Classification, kind: MessageKind = CREATE, **claimed: Any) -> Action:
    """Return the transition after a single such answer."""
    claim = replace(Claim(message(kind), 1), **claimed)
    returned = [SendResult(claim, Attempt(found, NOW, 0.1))]
    return decide(returned, DecisionContext(NOW, EndpointState()), RetryPolicy()).transitions[0].action


def finally_comes_to(found: Classification, kind: MessageKind = CREATE) -> Action:
    """Return the transition after five such answers over ten minutes."""
    return comes_to(found, kind, counted_attempts=4, refused_since=NOW - 600)


@pytest.mark.parametrize(("kind", "status", "verdict"), TABLE)
def test_each_status_has_the_verdict_of_the_design(
    make_client: MakeClient, kind: MessageKind, status: int, verdict: Verdict
) -> None:
    body = b"" if status in (204, 304) else b'{"why": "because"}'
    found = delivered_to(Server(answer(status, body)), make_client, kind)
    assert found.verdict == verdict
    assert found.status == status
    assert found.excerpt == body.decode()
    assert found.unsent is False
    call = "POST /api/media" if kind is CREATE else f"PUT /api/media/{MEDIA}/status"
    gone = ": the media item was deleted there, so no status is needed" if status == 410 and kind is STATUS else ""
    assert found.detail == f"{call} answered {status}{gone}"
    assert comes_to(found, kind) is STREAM[verdict]


def test_a_status_of_what_is_gone_there_is_superseded(make_client: MakeClient) -> None:
    assert delivered_to(Server(answer(410)), make_client, STATUS).outcome is Outcome.SUPERSEDED


def test_a_status_of_what_is_not_there_is_refused_once_that_has_gone_on(make_client: MakeClient) -> None:
    found = delivered_to(Server(answer(404)), make_client, STATUS)
    assert found.conclusion is not None
    assert found.conclusion.verdict is REFUSED
    assert finally_comes_to(found, STATUS) is Action.PARK


@pytest.mark.parametrize("status", [401, 403, 429])
def test_with_one_token_for_all_a_refused_token_is_an_unfit_endpoint(make_client: MakeClient, status: int) -> None:
    with Server(answer(status, retry_after="9")) as server:
        found = make_client(server.url).deliver(message())
    assert found.verdict == UNFIT
    assert found.retry_after == 9


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_leaves_the_outcome_of_a_message_unknown(make_client: MakeClient, status: int) -> None:
    assert delivered_to(Server(answer(status)), make_client, STATUS).outcome_unknown


@pytest.mark.parametrize("status", [401, 403, 404, 408, 425, 429, 501])
def test_a_refusal_leaves_no_doubt_but_keeps_an_older_one(make_client: MakeClient, status: int) -> None:
    assert not delivered_to(Server(answer(status)), make_client, STATUS).outcome_unknown
    assert delivered_to(Server(answer(status)), make_client, STATUS, outcome_unknown=True).outcome_unknown


# A 2xx that cannot come from there (row 18 of the field log, reliability row 29)

HTML = b"<!DOCTYPE html><title>Sign in</title>"
ACCEPTED_BODIES = {
    "no body": answer(201),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "blanks": answer(200, b" \r\n"),
    "a record": answer(200, json.dumps({"id": MEDIA, "mediaStatus": 1}).encode(), content_type="application/json"),
    "a record that tells of an error": answer(200, json.dumps({"id": MEDIA, "error": "no face found"}).encode()),
    "JSON by another type": answer(200, b'{"ok": true}', content_type="text/html"),
    "no errors": answer(200, b'{"errors": [], "error": null, "status": 2}'),
    "a list": answer(200, b"[]"),
    "a text": answer(200, b'"created"'),
    "empty HTML": answer(200, b"", content_type="text/html"),
    "with a byte order mark": answer(200, b"\xef\xbb\xbf{}"),
}
STRANGE_BODIES = {
    "HTML": (answer(200, HTML, content_type="text/html; charset=utf-8"), "a body that is not JSON (text/html)"),
    "HTML without a type": (answer(200, HTML), "a body that is not JSON (no type)"),
    "text": (answer(202, b"OK", content_type="text/plain"), "a body that is not JSON (text/plain)"),
    "another API's error": (answer(200, b'{"error": "no such route"}'), "another API's error"),
    "its code": (answer(200, b'{"status": 404, "message": "not found"}'), "another API's error"),
    "GraphQL": (answer(200, b'{"errors": [{"message": "x"}], "data": null}'), "another API's error"),
    "a problem": (answer(200, b"{}", content_type="application/problem+json"), "a problem document"),
    "cut JSON": (answer(200, b'{"id": '), "a body that is not JSON (no type)"),
}


@pytest.mark.parametrize("body", ACCEPTED_BODIES.values(), ids=ACCEPTED_BODIES.keys())
def test_json_or_nothing_is_what_an_accepted_message_is_answered_with(make_client: MakeClient, body: bytes) -> None:
    assert delivered_to(Server(body), make_client, CREATE).verdict is DELIVERED


@pytest.mark.parametrize(("body", "what"), STRANGE_BODIES.values(), ids=STRANGE_BODIES.keys())
def test_a_success_that_cannot_come_from_the_annotations_service_is_unfit_and_says_what_came(
    make_client: MakeClient, body: bytes, what: str
) -> None:
    found = delivered_to(Server(body), make_client, CREATE)
    assert found.verdict == UNFIT
    assert found.outcome_unknown is True
    assert found.detail.endswith(f" with {what}")


# A conflict is not the last word


def record(**fields: Any) -> bytes:
    return answer(200, json.dumps(fields).encode())


def cut_off(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")


DUPLICATE, SUPERSEDED = Outcome.DUPLICATE, Outcome.SUPERSEDED
CONFIRMED: list[tuple[MessageKind, Step, Outcome]] = [
    (CREATE, record(id=MEDIA, mediaType="Image"), DUPLICATE),
    (CREATE, record(id=MEDIA, mediaType="Image", userId="someone else"), DUPLICATE),
    (CREATE, record(id=MEDIA), DUPLICATE),
    (CREATE, record(mediaType="Image"), DUPLICATE),
    *((STATUS, record(id=MEDIA, mediaStatus=theirs), SUPERSEDED) for theirs in (2, 4, 5)),
    (STATUS, record(mediaStatus=2), SUPERSEDED),
]


@pytest.mark.parametrize(("kind", "look", "outcome"), CONFIRMED)
def test_a_conflict_that_the_record_confirms_is_delivered(
    make_client: MakeClient, kind: MessageKind, look: Step, outcome: Outcome
) -> None:
    server = Server(answer(409, b"conflict"), look)
    found = delivered_to(server, make_client, kind)
    assert found.verdict == DELIVERED
    assert found.outcome == outcome
    assert found.status == 409
    first, *looks = server.requests
    assert first.method == ("POST" if kind is CREATE else "PUT")
    assert {(one.method, one.path) for one in looks} == {("GET", f"/api/media/{MEDIA}")}


def test_another_type_there_is_a_contradiction(make_client: MakeClient) -> None:
    found = delivered_to(Server(answer(409), record(id=MEDIA, mediaType="Video")), make_client, CREATE)
    assert comes_to(found) is Action.PARK
    assert found.detail == (
        f"POST /api/media answered 409; GET /api/media/{MEDIA} answered 200: mediaType is Video there, Image here"
    )


@pytest.mark.parametrize("theirs", [1, 3, 6])
@pytest.mark.parametrize("unknown", [False, True])
def test_a_status_behind_ours_is_not_the_last_word_and_in_the_end_a_person_is_asked(
    make_client: MakeClient, theirs: int, unknown: bool
) -> None:
    server = Server(answer(409), record(id=MEDIA, mediaStatus=theirs))
    found = delivered_to(server, make_client, STATUS, outcome_unknown=unknown, reference=OTHER)
    assert found.verdict == LIMITED
    assert found.outcome_unknown == unknown
    assert comes_to(found, STATUS) is Action.RETRY
    assert finally_comes_to(found, STATUS) is Action.PARK


CANNOT_BE_LOOKED_INTO: dict[str, Step] = {
    **{str(status): answer(status) for status in (400, 401, 403, 405, 501)},
    "302": answer(302, location="http://elsewhere/"),
    "of another item": record(id=OTHER.media_id, mediaType="Image", mediaStatus=2),
    **{
        f"unreadable {number}": answer(200, body)
        for number, body in enumerate(
            [
                HTML,
                b"[]",
                b"{}",
                b"null",
                b"[" * 60_000,
                b"9" * 10_000,
                b"\xff\xfe\x00",
                b'{"id": 1, "mediaType": 1, "mediaStatus": "2"}',
                b'{"mediaType": null, "mediaStatus": true}',
            ]
        )
    },
}


@pytest.mark.parametrize("kind", MessageKind)
@pytest.mark.parametrize("look", CANNOT_BE_LOOKED_INTO.values(), ids=CANNOT_BE_LOOKED_INTO.keys())
def test_a_conflict_whose_record_cannot_be_read_is_not_final(
    make_client: MakeClient, look: Step, kind: MessageKind
) -> None:
    found = delivered_to(Server(answer(409), look), make_client, kind)
    assert found.verdict is LIMITED
    assert comes_to(found, kind) is Action.RETRY


@pytest.mark.parametrize("status", [404, 410])
def test_a_conflict_over_what_is_not_there_is_not_the_last_word_and_alone_never_means_delivered(
    make_client: MakeClient, status: int
) -> None:
    for kind in MessageKind:
        for unknown in (False, True):
            found = delivered_to(Server(answer(409), answer(status)), make_client, kind, outcome_unknown=unknown)
            assert comes_to(found, kind) is Action.RETRY
            assert finally_comes_to(found, kind) is Action.PARK


def with_reference(
    make_client: MakeClient, kind: MessageKind, look: Step, other: Step, **changes: Any
) -> Classification:
    server = Server(answer(409), *[look] * (2 if look == answer(401) else 1), other)
    found = delivered_to(server, make_client, kind, reference=OTHER, **changes)
    assert server.requests[-1].path == f"/api/media/{OTHER.media_id}"
    return found


@pytest.mark.parametrize("kind", MessageKind)
@pytest.mark.parametrize("look", [answer(404), answer(403), answer(405)], ids=["404", "403", "405"])
def test_if_other_records_can_be_read_and_this_one_cannot_it_is_parked_with_both_answers(
    make_client: MakeClient, look: Step, kind: MessageKind
) -> None:
    found = with_reference(make_client, kind, look, record(id=OTHER.media_id), outcome_unknown=True)
    assert finally_comes_to(found, kind) is Action.PARK
    assert found.conclusion is not None
    assert f"; GET /api/media/{MEDIA} answered 4" in found.conclusion.detail
    assert found.conclusion.detail.endswith(f"; GET /api/media/{OTHER.media_id} answered 200")


@pytest.mark.parametrize("look", [answer(404), answer(403), answer(405)], ids=["404", "403", "405"])
@pytest.mark.parametrize(("kind", "unknown"), [(CREATE, False), (CREATE, True), (STATUS, True)])
def test_if_no_record_can_be_read_it_counts_as_delivered_and_is_noted_as_unseen(
    make_client: MakeClient, look: Step, kind: MessageKind, unknown: bool
) -> None:
    found = with_reference(make_client, kind, look, answer(404), outcome_unknown=unknown)
    assert comes_to(found, kind) is Action.RETRY
    assert finally_comes_to(found, kind) is Action.DELIVERED
    assert found.conclusion is not None
    assert found.conclusion.outcome is (DUPLICATE if kind is CREATE else SUPERSEDED)
    assert found.conclusion.detail.endswith("counted as delivered, unseen")


def test_a_status_that_was_never_sent_before_is_not_taken_for_done(make_client: MakeClient) -> None:
    found = with_reference(make_client, STATUS, answer(405), answer(405))
    assert finally_comes_to(found, STATUS) is Action.PARK


@pytest.mark.parametrize("other", [answer(500), answer(503), cut_off, Peer.reset], ids=["500", "503", "cut", "reset"])
def test_nothing_is_concluded_while_the_other_item_cannot_be_asked_for(make_client: MakeClient, other: Step) -> None:
    found = with_reference(make_client, CREATE, answer(404), other)
    assert finally_comes_to(found) is Action.RETRY


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("kind", MessageKind)
@pytest.mark.parametrize(
    ("look", "verdict"),
    [(Peer.reset, RETRY), (cut_off, RETRY), (answer(500), RETRY), (answer(503), UNFIT), (answer(429), HOLD)],
    ids=["reset", "cut", "500", "503", "429"],
)
def test_a_failed_record_lookup_is_repeated_and_leaves_the_outcome_unknown(
    make_client: MakeClient, look: Step, verdict: Verdict, kind: MessageKind, unknown: bool
) -> None:
    found = delivered_to(Server(answer(409), look), make_client, kind, outcome_unknown=unknown)
    assert found.verdict == verdict
    assert found.outcome_unknown == unknown
    assert found.status == 409


# Retry-After


@pytest.mark.parametrize("status", [302, 400, 401, 403, 408, 413, 422, 423, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("kind", MessageKind)
def test_retry_after_is_passed_on_with_any_code_but_success(
    make_client: MakeClient, kind: MessageKind, status: int
) -> None:
    found = delivered_to(Server(answer(status, retry_after="120")), make_client, kind)
    assert found.retry_after == 120
    assert comes_to(found, kind) is Action.RETRY


@pytest.mark.parametrize("kind", MessageKind)
def test_retry_after_of_a_conflict_puts_every_conclusion_off(make_client: MakeClient, kind: MessageKind) -> None:
    found = delivered_to(Server(answer(409, retry_after="120"), answer(404)), make_client, kind)
    assert found.retry_after == 120
    assert finally_comes_to(found, kind) is Action.RETRY


def test_retry_after_of_a_success_means_nothing(make_client: MakeClient) -> None:
    assert delivered_to(Server(answer(200, retry_after="120")), make_client, CREATE).retry_after is None


def test_a_retry_date_is_measured_by_the_clock_of_the_other_side(make_client: MakeClient) -> None:
    busy = answer(503, date="Sun, 06 Nov 1994 08:49:37 GMT", retry_after="Sun, 06 Nov 1994 08:50:07 GMT")
    assert delivered_to(Server(busy), make_client, CREATE).retry_after == 30


def test_retry_after_is_heeded_for_an_hour_at_most(make_client: MakeClient) -> None:
    assert delivered_to(Server(answer(413, retry_after="99999")), make_client, CREATE).retry_after == 3600
