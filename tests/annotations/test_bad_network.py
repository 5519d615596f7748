"""A network at its worst: no send outlasts its deadline, and none is judged by an answer that did not come whole."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from app.annotations.resolver import Resolver
from app.outbox.messages import Answer, Verdict
from tests.annotations.conftest import MakeClient, message
from tests.annotations.servers import Peer, Server, Step, answer, free_port, full_backlog

DEADLINE = 0.5
GRACE = 2.0
OK = answer(200, b"{}")


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < DEADLINE + GRACE


def unknown_fate(judged: Answer) -> bool:
    return judged.verdict is Verdict.RETRY and judged.uncertain and not judged.unsent


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
            judged = client.deliver(message())
        assert len(server.requests) == before + 1
    assert unknown_fate(judged)
    assert judged.detail == "POST /api/media: timed out"


def test_one_deadline_covers_the_look_after_a_conflict(make_client: MakeClient) -> None:
    def late_conflict(peer: Peer) -> None:
        time.sleep(DEADLINE * 0.8)
        peer.send(answer(409))

    with Server(late_conflict, drip_body) as server:
        started = time.monotonic()
        judged = make_client(server.url, deadline_seconds=DEADLINE).deliver(message())
        assert time.monotonic() - started < DEADLINE * 1.5
    assert (judged.verdict, judged.status, judged.uncertain) == (Verdict.RETRY, 409, False)


def test_no_time_left_for_a_second_request_is_no_trouble_of_the_endpoint(make_client: MakeClient) -> None:
    class SlowTokens:
        def token_for(self, user_id: str, *, fresh: bool = False) -> str:
            time.sleep(DEADLINE if fresh else 0)
            return "token"

    with Server(answer(401)) as server:
        judged = make_client(server.url, tokens=SlowTokens(), deadline_seconds=DEADLINE).deliver(message())
    assert len(server.requests) == 1
    assert (judged.verdict, judged.uncertain, judged.unsent) == (Verdict.RETRY, False, False)


def test_a_deadline_that_cut_one_send_leaves_the_next_one_its_full_time(make_client: MakeClient) -> None:
    def slow_but_whole(peer: Peer) -> None:
        time.sleep(DEADLINE * 0.6)
        peer.send(OK)

    with Server(drip_body, slow_but_whole) as server:
        client = make_client(server.url, deadline_seconds=DEADLINE)
        assert unknown_fate(client.deliver(message()))
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
def test_an_answer_that_is_cut_off_leaves_the_fate_unknown(make_client: MakeClient, cut: Step) -> None:
    with Server(cut) as server:
        assert unknown_fate(make_client(server.url).deliver(message()))
        assert len(server.requests) == 1


GARBAGE = [
    b"\x00\xff\x16\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 99 Low\r\n\r\n",
    b"HTTP/1.1 1000 High\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_an_answer_that_is_no_http_leaves_the_fate_unknown(make_client: MakeClient, garbage: bytes) -> None:
    with Server(say(garbage), OK) as server:
        client = make_client(server.url)
        assert unknown_fate(client.deliver(message()))
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


@pytest.mark.parametrize("status", [101, 102, 103])
def test_an_interim_answer_is_never_followed_by_another_request(make_client: MakeClient, status: int) -> None:
    with Server(f"HTTP/1.1 {status} Interim\r\n\r\n".encode(), OK) as server:
        client = make_client(server.url)
        assert unknown_fate(client.deliver(message()))
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


def test_an_idle_connection_that_was_closed_is_no_trouble(make_client: MakeClient) -> None:
    with Server(say(OK), OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert server.peers[0].gone.wait(5)
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("closed", [say(b""), Peer.reset], ids=["closed", "reset"])
def test_a_used_connection_that_ends_before_an_answer_is_replaced_once(make_client: MakeClient, closed: Step) -> None:
    with Server(OK, closed, OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert (len(server.requests), server.connections) == (3, 2)
    assert server.requests[1].headers["idempotency-key"] == server.requests[2].headers["idempotency-key"]


def test_a_service_that_closes_every_time_is_not_asked_again_and_again(make_client: MakeClient) -> None:
    with Server(OK, say(b"")) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert unknown_fate(client.deliver(message()))
    assert len(server.requests) == 3


def test_a_used_connection_that_ends_inside_an_answer_is_not_replaced(make_client: MakeClient) -> None:
    with Server(OK, say(b"HTTP/1.1 200 OK\r\nContent-Le"), OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        assert unknown_fate(client.deliver(message()))
    assert len(server.requests) == 2


def test_a_send_that_may_have_arrived_is_not_unsent_because_the_next_connection_is_refused(
    make_client: MakeClient,
) -> None:
    with Server(OK, lambda _: server.refuse()) as server:
        client = make_client(server.url)
        client.deliver(message())
        judged = client.deliver(message())
    assert (judged.verdict, judged.uncertain, judged.unsent) == (Verdict.CLOSE_GATE, True, False)


def test_a_refused_connection_closes_the_gate_with_nothing_sent(make_client: MakeClient) -> None:
    port = free_port()
    judged = make_client(f"http://127.0.0.1:{port}").deliver(message())
    assert (judged.verdict, judged.unsent, judged.uncertain, judged.status) == (Verdict.CLOSE_GATE, True, False, None)
    assert judged.detail == f"POST /api/media: no connection to http://127.0.0.1:{port}: [Errno 111] Connection refused"


def test_nothing_sent_now_keeps_an_older_doubt(make_client: MakeClient) -> None:
    judged = make_client(f"http://127.0.0.1:{free_port()}").deliver(message(uncertain=True))
    assert (judged.unsent, judged.uncertain) == (True, True)


def test_a_connection_that_does_not_come_about_closes_the_gate_in_time(make_client: MakeClient) -> None:
    with full_backlog() as port:
        client = make_client(f"http://127.0.0.1:{port}", connect_timeout=0.3, deadline_seconds=10)
        with in_time():
            judged = client.deliver(message())
    assert (judged.verdict, judged.unsent) == (Verdict.CLOSE_GATE, True)
    assert judged.detail.endswith("timed out")


def test_a_name_that_is_none_closes_the_gate(make_client: MakeClient) -> None:
    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    judged = make_client("http://annotations.test:81", resolver=Resolver(unknown)).deliver(message())
    assert (judged.verdict, judged.unsent) == (Verdict.CLOSE_GATE, True)
    assert "http://annotations.test:81: [Errno -2] Name or service not known" in judged.detail


def test_a_name_server_that_is_silent_holds_no_send_beyond_the_time_to_connect(make_client: MakeClient) -> None:
    enough = threading.Event()

    def silent(*_: object, **__: object) -> list[tuple[object, ...]]:
        enough.wait(30)
        return []

    client = make_client("http://annotations.test", resolver=Resolver(silent), connect_timeout=0.3)
    with in_time():
        judged = client.deliver(message())
    enough.set()
    assert (judged.verdict, judged.unsent) == (Verdict.CLOSE_GATE, True)


def test_the_next_address_is_tried_where_one_swallows_everything(make_client: MakeClient) -> None:
    with full_backlog() as dead, Server(OK) as server:

        def both(*_: object, **__: object) -> list[tuple[object, ...]]:
            stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            return [(*stream, ("127.0.0.1", dead)), (*stream, ("127.0.0.1", server.port))]

        client = make_client("http://annotations.test", resolver=Resolver(both), connect_timeout=1.0)
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.requests[0].headers["host"] == "annotations.test"
