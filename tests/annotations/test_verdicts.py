"""Every row of the design's table of answers, over real HTTP."""

import json
from typing import Any

import pytest

from app.outbox.messages import Answer, Kind, Outcome, Verdict
from tests.annotations.conftest import MEDIA, MakeClient, message
from tests.annotations.servers import Peer, Server, Step, answer

CREATE, STATUS = Kind.CREATE, Kind.STATUS
DELIVERED, RETRY, PARK, CLOSE_GATE = Verdict.DELIVERED, Verdict.RETRY, Verdict.PARK, Verdict.CLOSE_GATE

SAME_FOR_BOTH = (
    dict.fromkeys((200, 201, 202, 204), DELIVERED)
    | dict.fromkeys((300, 301, 302, 303, 304, 307, 308, 401, 403, 429, 503), CLOSE_GATE)
    | dict.fromkeys((400, 402, 406, 410, 412, 413, 414, 415, 418, 422, 423, 451, 499), PARK)
    | dict.fromkeys((408, 425, 500, 502, 504, 507, 599, 600, 999), RETRY)
)
TABLE = [
    *((kind, status, verdict) for kind in Kind for status, verdict in SAME_FOR_BOTH.items()),
    *((CREATE, status, CLOSE_GATE) for status in (404, 405, 501)),
    (STATUS, 404, RETRY),
    (STATUS, 405, PARK),
    (STATUS, 501, RETRY),
]


def delivered_to(server: Server, make_client: MakeClient, kind: Kind, **changes: Any) -> Answer:
    with server:
        return make_client(server.url).deliver(message(kind, **changes))


@pytest.mark.parametrize(("kind", "status", "verdict"), TABLE)
def test_each_status_has_the_verdict_of_the_design(
    make_client: MakeClient, kind: Kind, status: int, verdict: Verdict
) -> None:
    body = b"" if status in (204, 304) else b"because"
    judged = delivered_to(Server(answer(status, body)), make_client, kind)
    assert (judged.verdict, judged.status, judged.excerpt) == (verdict, status, body.decode())
    assert judged.max_tries == (5 if (kind, status) == (STATUS, 404) else None)
    assert judged.unsent is False
    call = "POST /api/media" if kind is CREATE else f"PUT /api/media/{MEDIA}/status"
    assert judged.detail == f"{call} answered {status}"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_leaves_the_fate_of_a_message_unknown(make_client: MakeClient, status: int) -> None:
    assert delivered_to(Server(answer(status)), make_client, STATUS).uncertain


@pytest.mark.parametrize("status", [401, 403, 404, 408, 425, 429, 501])
def test_a_refusal_leaves_no_doubt_but_keeps_an_older_one(make_client: MakeClient, status: int) -> None:
    assert not delivered_to(Server(answer(status)), make_client, STATUS).uncertain
    assert delivered_to(Server(answer(status)), make_client, STATUS, uncertain=True).uncertain


def record(**fields: Any) -> bytes:
    return answer(200, json.dumps({"id": MEDIA, **fields}).encode())


def cut_off(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")


Expected = tuple[Verdict, Outcome]
ACCEPTED, DUPLICATE, SUPERSEDED = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.SUPERSEDED

CONFLICTS: list[tuple[Kind, bool, Step, Expected]] = [
    (CREATE, False, record(mediaType="Image"), (DELIVERED, DUPLICATE)),
    (CREATE, True, record(mediaType="Image", userId="someone else"), (DELIVERED, DUPLICATE)),
    (CREATE, False, record(mediaType="Video"), (PARK, ACCEPTED)),
    *((CREATE, False, answer(status), (DELIVERED, DUPLICATE)) for status in (404, 405, 501)),
    (STATUS, False, record(mediaStatus=2), (DELIVERED, SUPERSEDED)),
    (STATUS, False, record(mediaStatus=4), (DELIVERED, SUPERSEDED)),
    (STATUS, False, record(mediaStatus=5), (DELIVERED, SUPERSEDED)),
    *((STATUS, False, record(mediaStatus=other), (PARK, ACCEPTED)) for other in (1, 3, 6)),
    *((STATUS, False, answer(status), (PARK, ACCEPTED)) for status in (404, 405, 501)),
    *((STATUS, True, answer(status), (DELIVERED, SUPERSEDED)) for status in (404, 405, 501)),
    (STATUS, True, record(mediaStatus=1), (PARK, ACCEPTED)),
    *((kind, False, answer(500), (RETRY, ACCEPTED)) for kind in Kind),
    *((kind, False, cut_off, (RETRY, ACCEPTED)) for kind in Kind),
    *((kind, False, Peer.reset, (RETRY, ACCEPTED)) for kind in Kind),
    *((kind, False, answer(503, retry_after="9"), (CLOSE_GATE, ACCEPTED)) for kind in Kind),
    *((kind, False, answer(302, location="http://elsewhere/"), (CLOSE_GATE, ACCEPTED)) for kind in Kind),
    *((kind, False, answer(403), (CLOSE_GATE, ACCEPTED)) for kind in Kind),
]


@pytest.mark.parametrize(("kind", "uncertain", "look", "expected"), CONFLICTS)
def test_a_conflict_is_settled_by_what_a_look_finds(
    make_client: MakeClient, kind: Kind, uncertain: bool, look: Step, expected: Expected
) -> None:
    server = Server(answer(409, b"conflict"), look)
    judged = delivered_to(server, make_client, kind, uncertain=uncertain)
    assert (judged.verdict, judged.outcome) == expected
    assert judged.status == 409
    first, *looks = server.requests
    assert first.method == ("POST" if kind is CREATE else "PUT")
    assert {(one.method, one.path) for one in looks} == {("GET", f"/api/media/{MEDIA}")}


@pytest.mark.parametrize(
    "unreadable",
    [
        b"<html>",
        b"[]",
        b"{}",
        b"null",
        b"[" * 60_000,
        b'{"mediaType": 1, "mediaStatus": "2"}',
        b'{"mediaType": null, "mediaStatus": true}',
        b"9" * 10_000,
        b"\xff\xfe\x00",
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_a_record_that_cannot_be_read_is_tried_a_few_times_before_a_person_is_asked(
    make_client: MakeClient, kind: Kind, unreadable: bytes
) -> None:
    judged = delivered_to(Server(answer(409), answer(200, unreadable)), make_client, kind)
    assert (judged.verdict, judged.max_tries) == (RETRY, 5)


@pytest.mark.parametrize("uncertain", [False, True])
@pytest.mark.parametrize(
    ("look", "verdict"),
    [(Peer.reset, RETRY), (cut_off, RETRY), (answer(500), RETRY), (answer(503), CLOSE_GATE), (answer(403), CLOSE_GATE)],
    ids=["reset", "cut", "500", "503", "403"],
)
def test_a_look_that_fails_keeps_the_doubt_as_it_was(
    make_client: MakeClient, look: Step, verdict: Verdict, uncertain: bool
) -> None:
    judged = delivered_to(Server(answer(409), look), make_client, STATUS, uncertain=uncertain)
    assert (judged.verdict, judged.uncertain) == (verdict, uncertain)


def test_a_conflict_says_what_is_there_and_what_is_here(make_client: MakeClient) -> None:
    judged = delivered_to(Server(answer(409), record(mediaType="Video")), make_client, CREATE)
    assert judged.detail == (
        f"POST /api/media answered 409; GET /api/media/{MEDIA} answered 200: mediaType is Video there, Image here"
    )


def test_a_duplicate_that_could_not_be_looked_at_is_noted(make_client: MakeClient) -> None:
    judged = delivered_to(Server(answer(409), answer(405)), make_client, CREATE)
    assert judged.detail.endswith(f"GET /api/media/{MEDIA} answered 405: taken for done, unseen")


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_of_a_closed_gate_is_passed_on(make_client: MakeClient, status: int) -> None:
    judged = delivered_to(Server(answer(status, retry_after="120")), make_client, CREATE)
    assert judged.retry_after == 120


def test_a_retry_date_is_measured_by_the_clock_of_the_other_side(make_client: MakeClient) -> None:
    busy = answer(503, date="Sun, 06 Nov 1994 08:49:37 GMT", retry_after="Sun, 06 Nov 1994 08:50:07 GMT")
    assert delivered_to(Server(busy), make_client, CREATE).retry_after == 30


@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_retry_after_means_nothing_with_other_answers(make_client: MakeClient, status: int) -> None:
    assert delivered_to(Server(answer(status, retry_after="120")), make_client, CREATE).retry_after is None
