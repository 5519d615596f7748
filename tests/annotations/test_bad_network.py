"""A bad network: no request exceeds its deadline, and an incomplete answer is not classified."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.http_exchange.resolver import Resolver
from app.outbox.messages import Classification, Verdict
from tests.annotations.conftest import MakeClient, message
from tests.annotations.servers import Peer, Server, Step, answer, full_backlog
from tests.servers.ports import free_port

pytestmark = pytest.mark.slow

DEADLINE = 0.5
GRACE = 2.0
OK = answer(200, b"{}")


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < DEADLINE + GRACE


def unknown_outcome(found: Classification) -> bool:
    return found.verdict is Verdict.RETRY and found.outcome_unknown and not found.unsent


def drip_head(peer: Peer) -> None:
    peer.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 500)


def drip_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    peer.drip(b"x" * 500)


def drip_chunks(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.drip(b"1\r\nx\r\n" * 100)


def drip_until_closed(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    peer.drip(b"x" * 500)


def continue_for_ever(peer: Peer) -> None:
    for _ in range(500):
        peer.drip(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01)


@pytest.mark.parametrize("slow", [Peer.stall, drip_head, drip_body, drip_chunks, drip_until_closed, continue_for_ever])
@pytest.mark.parametrize("before", [0, 1])
def test_no_send_outlasts_its_deadline(make_client: MakeClient, slow: Step, before: int) -> None:
    with Server(*[OK] * before, slow) as server:
        client = make_client(server.url, deadline_seconds=DEADLINE)
        for _ in range(before):
            client.deliver(message())
        with in_time():
            found = client.deliver(message())
        assert len(server.requests) == before + 1
    assert unknown_outcome(found)
    assert found.detail == "POST /api/media: timed out"


def test_one_deadline_covers_the_record_lookup_after_a_conflict(make_client: MakeClient) -> None:
    def late_conflict(peer: Peer) -> None:
        time.sleep(DEADLINE * 0.8)
        peer.send(answer(409))

    with Server(late_conflict, drip_body) as server:
        started = time.monotonic()
        found = make_client(server.url, deadline_seconds=DEADLINE).deliver(message())
        assert time.monotonic() - started < DEADLINE * 1.5
    assert found.verdict == Verdict.RETRY
    assert found.status == 409
    assert found.outcome_unknown is False


def test_no_time_left_for_a_second_request_does_not_count_against_the_endpoint(make_client: MakeClient) -> None:
    class SlowTokens:
        is_shared = False

        def token_for(self, user_id: str, *, fresh: bool = False) -> str:
            time.sleep(DEADLINE if fresh else 0)
            return "token"

    with Server(answer(401)) as server:
        found = make_client(server.url, tokens=SlowTokens(), deadline_seconds=DEADLINE).deliver(message())
    assert len(server.requests) == 1
    assert found.verdict == Verdict.RETRY
    assert found.outcome_unknown is False
    assert found.unsent is False


def test_a_deadline_that_cut_one_send_leaves_the_next_one_its_full_time(make_client: MakeClient) -> None:
    def slow_but_whole(peer: Peer) -> None:
        time.sleep(DEADLINE * 0.6)
        peer.send(OK)

    with Server(drip_body, slow_but_whole) as server:
        client = make_client(server.url, deadline_seconds=DEADLINE)
        assert unknown_outcome(client.deliver(message()))
        assert client.deliver(message()).verdict is Verdict.DELIVERED


def reset_inside(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    peer.reset()


def say(data: bytes) -> Step:
    return lambda peer: peer.send(data)


CUT = [
    Peer.reset,
    reset_inside,
    say(b""),
    say(b"H"),
    say(b"HTTP/1.1 20"),
    say(b"HTTP/1.1 200"),
    say(b"HTTP/1.1 200 OK\r\n"),
    say(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    say(b"HTTP/1.1 422 No\r\nContent-Length: 9\r\n\r\nhalf"),
    say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
    say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
]


@pytest.mark.parametrize("cut", CUT, ids=range(len(CUT)))
def test_an_answer_that_is_cut_off_leaves_the_outcome_unknown(make_client: MakeClient, cut: Step) -> None:
    with Server(cut) as server:
        assert unknown_outcome(make_client(server.url).deliver(message()))
        assert len(server.requests) == 1


NOT_HTTP = {
    b"\x00\xff\x16\x03": "00 ff 16 03",
    b"\x15\x03\x01\x00\x02\x02\x46": "15 03 01 00 02 02: TLS?",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00": "00 00 12 04 00 00: HTTP/2?",
    b"SSH-2.0-OpenSSH_9.2\r\n": "'SSH-2.': SSH?",
    b"ICY 200 OK\r\n\r\n": "'ICY 20'",
    b"{}": "'{}'",
}


@pytest.mark.parametrize(("garbage", "named"), NOT_HTTP.items())
@pytest.mark.parametrize("closed", [True, False])
def test_what_is_not_http_is_named_by_its_first_bytes_and_unfit(
    make_client: MakeClient, garbage: bytes, named: str, closed: bool
) -> None:
    def answered(peer: Peer) -> None:
        peer.send(garbage)
        if not closed:
            peer.gone.wait(GRACE)

    with Server(answered, OK) as server:
        client = make_client(server.url)
        with in_time():
            found = client.deliver(message())
        assert found.verdict == Verdict.UNFIT
        assert found.outcome_unknown is True
        assert found.unsent is False
        assert found.detail == f"POST /api/media: the answer is not HTTP (begins {named})"
        assert client.deliver(message()).verdict is Verdict.DELIVERED


MALFORMED = [
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 99 Low\r\n\r\n",
    b"HTTP/1.1 1000 High\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10_000,
]


@pytest.mark.parametrize("garbage", MALFORMED, ids=range(len(MALFORMED)))
def test_an_answer_that_is_malformed_leaves_the_outcome_unknown(make_client: MakeClient, garbage: bytes) -> None:
    with Server(say(garbage), OK) as server:
        client = make_client(server.url)
        assert unknown_outcome(client.deliver(message()))
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints\r\nLink: </a>; rel=preload"])
@pytest.mark.parametrize("times", [1, 3])
def test_interim_answers_are_read_past(make_client: MakeClient, interim: bytes, times: int) -> None:
    """One request, and the connection is used again."""
    whole = b"HTTP/1.1 " + interim + b"\r\n\r\n"
    with Server(whole * times + answer(201), OK) as server:
        client = make_client(server.url)
        found = client.deliver(message())
        assert found.verdict == Verdict.DELIVERED
        assert found.status == 201
        assert client.deliver(message()).status == 200
    assert len(server.requests) == 2
    assert server.connections == 1


def test_interim_answers_of_several_kinds_are_read_past_one_after_the_other(make_client: MakeClient) -> None:
    heads = b"".join(b"HTTP/1.1 %d X\r\n\r\n" % status for status in (102, 100, 103, 100))
    with Server(heads + answer(422)) as server:
        assert make_client(server.url).deliver(message()).status == 422


def hints_for_ever(peer: Peer) -> None:
    for _ in range(500):
        peer.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n", every=0.01)


def test_interim_answers_for_ever_end_at_the_deadline(make_client: MakeClient) -> None:
    with Server(hints_for_ever) as server:
        client = make_client(server.url, deadline_seconds=DEADLINE)
        with in_time():
            assert unknown_outcome(client.deliver(message()))


def test_switching_to_another_protocol_is_unfit(make_client: MakeClient) -> None:
    with Server(say(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), OK) as server:
        client = make_client(server.url)
        found = client.deliver(message())
        assert found.verdict == Verdict.UNFIT
        assert found.outcome_unknown is True
        assert found.detail.endswith("the answer switches to another protocol (101)")
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


@pytest.mark.parametrize("status", [102, 103])
def test_an_interim_answer_alone_is_never_followed_by_another_request(make_client: MakeClient, status: int) -> None:
    with Server(say(f"HTTP/1.1 {status} Interim\r\n\r\n".encode()), OK) as server:
        client = make_client(server.url)
        assert unknown_outcome(client.deliver(message()))
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


def test_a_closed_idle_connection_is_replaced_without_a_failure(make_client: MakeClient) -> None:
    with Server(say(OK), OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert server.peers[0].gone.wait(5)
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert len(server.requests) == 2
    assert server.connections == 2


@pytest.mark.parametrize("closed", [say(b""), Peer.reset], ids=["closed", "reset"])
def test_a_used_connection_that_ends_before_an_answer_is_replaced_once(make_client: MakeClient, closed: Step) -> None:
    with Server(OK, closed, OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert len(server.requests) == 3
    assert server.connections == 2
    assert server.requests[1].headers["idempotency-key"] == server.requests[2].headers["idempotency-key"]


def test_a_service_that_closes_every_time_is_not_asked_again_and_again(make_client: MakeClient) -> None:
    with Server(OK, say(b"")) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert unknown_outcome(client.deliver(message()))
    assert len(server.requests) == 3


def test_a_used_connection_that_ends_inside_an_answer_is_not_replaced(make_client: MakeClient) -> None:
    with Server(OK, say(b"HTTP/1.1 200 OK\r\nContent-Le"), OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert unknown_outcome(client.deliver(message()))
    assert len(server.requests) == 2


def test_a_send_that_may_have_arrived_is_not_unsent_because_the_next_connection_is_refused(
    make_client: MakeClient,
) -> None:
    with Server(OK, lambda _: server.refuse()) as server:
        client = make_client(server.url)
        client.deliver(message())
        found = client.deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.outcome_unknown is True
    assert found.unsent is False


def test_a_refused_connection_is_unfit_with_nothing_sent(make_client: MakeClient) -> None:
    port = free_port()
    found = make_client(f"http://127.0.0.1:{port}").deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True
    assert found.outcome_unknown is False
    assert found.status is None
    assert found.detail == f"POST /api/media: no connection to http://127.0.0.1:{port}: [Errno 111] Connection refused"


def test_nothing_sent_now_keeps_an_older_doubt(make_client: MakeClient) -> None:
    found = make_client(f"http://127.0.0.1:{free_port()}").deliver(message(outcome_unknown=True))
    assert found.unsent is True
    assert found.outcome_unknown is True


def test_a_connection_that_does_not_come_about_is_unfit_in_time(make_client: MakeClient) -> None:
    with full_backlog() as port:
        client = make_client(f"http://127.0.0.1:{port}", connect_timeout=0.3, deadline_seconds=10)
        with in_time():
            found = client.deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True
    assert found.detail.endswith("timed out")


def test_a_name_that_is_none_is_unfit(make_client: MakeClient) -> None:
    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    found = make_client("http://annotations.test:81", resolver=Resolver(unknown)).deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True
    assert "http://annotations.test:81: [Errno -2] Name or service not known" in found.detail


def test_a_name_server_that_is_silent_holds_no_send_beyond_the_time_to_connect(make_client: MakeClient) -> None:
    enough = threading.Event()

    def silent(*_: object, **__: object) -> list[tuple[object, ...]]:
        enough.wait(30)
        return []

    client = make_client("http://annotations.test", resolver=Resolver(silent), connect_timeout=0.3)
    with in_time():
        found = client.deliver(message())
    enough.set()
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True


def test_the_next_address_is_tried_where_one_swallows_everything(make_client: MakeClient) -> None:
    with full_backlog() as dead, Server(OK) as server:

        def both(*_: object, **__: object) -> list[tuple[object, ...]]:
            stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            return [(*stream, ("127.0.0.1", dead)), (*stream, ("127.0.0.1", server.port))]

        client = make_client("http://annotations.test", resolver=Resolver(both), connect_timeout=1.0)
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.requests[0].headers["host"] == "annotations.test"
