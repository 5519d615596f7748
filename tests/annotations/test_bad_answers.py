"""A service with wrong, huge or malicious answers: reading is bounded, and no token leaks."""

import gzip
import logging
import time
import tracemalloc
from contextlib import closing
from urllib.parse import quote

import pytest

from app.annotations import AnnotationsClient
from app.annotations.tokens import MintedTokens, StaticToken
from app.http_exchange.deadline import MAX_RESPONSE_BYTES, DeadlineSession, Endpoint
from app.http_exchange.exchange import exchange
from app.http_exchange.resolver import Resolver
from app.outbox.messages import MessageKind, Verdict
from tests.annotations.conftest import TOKEN, MakeClient, message
from tests.annotations.servers import Peer, Server, Step, answer

MIB = 1 << 20
OK = answer(200, b"{}")


def ten_gib(head: bytes) -> Step:
    def pour(peer: Peer) -> None:
        peer.send(head + b"\r\n\r\n")
        peer.pour(b"x" * MIB, times=10 * 1024)

    return pour


def one_byte_chunks(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.pour((b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 1000, times=10 * 1024)


HUGE = [
    (ten_gib(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10737418240"), Verdict.DELIVERED),
    (ten_gib(b"HTTP/1.1 200 OK"), Verdict.UNFIT),
    (ten_gib(b"HTTP/1.1 422 No\r\nContent-Length: 10737418240"), Verdict.REFUSED),
    (ten_gib(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 10737418240"), Verdict.UNFIT),
    (ten_gib(b"HTTP/1.1 503 Busy\r\nContent-Length: 10737418240"), Verdict.UNFIT),
    (ten_gib(b"HTTP/1.1 500 Oops\r\nContent-Length: 10737418240"), Verdict.RETRY),
    (one_byte_chunks, Verdict.UNFIT),
]


@pytest.mark.parametrize(("huge", "verdict"), HUGE, ids=range(len(HUGE)))
def test_an_endless_answer_is_classified_by_its_head_and_its_connection_closed(
    make_client: MakeClient, huge: Step, verdict: Verdict
) -> None:
    with Server(huge, OK) as server:
        client = make_client(server.url)
        assert client.deliver(message()).verdict is verdict
        assert server.peers[0].gone.wait(5)
        assert server.peers[0].sent < 64 * MIB  # what the kernel takes in advance
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


@pytest.mark.parametrize("huge", [step for step, _ in HUGE], ids=range(len(HUGE)))
def test_at_most_64_kib_of_an_answer_are_read(huge: Step) -> None:
    with (
        Server(huge) as server,
        closing(DeadlineSession(Endpoint.parse(server.url, "ANNOTATIONS_URL"), Resolver(), 3.0, None)) as session,
    ):
        session.state.ends_at = time.monotonic() + 5
        reply = exchange(session, "GET", "/", {})
        assert session.state.received == MAX_RESPONSE_BYTES == 65536
        assert len(reply.body) < MAX_RESPONSE_BYTES


@pytest.mark.parametrize("status", [200, 302, 409, 422])
def test_a_gzip_bomb_is_not_unpacked(make_client: MakeClient, status: int) -> None:
    bomb = gzip.compress(bytes(32 * MIB))
    packed = answer(status, bomb, content_encoding="gzip", location="/elsewhere")
    with Server(packed) as server:
        client = make_client(server.url)
        tracemalloc.start()
        found = client.deliver(message())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert found.excerpt == "(compressed, though that was not asked for)"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", MessageKind)
def test_no_redirect_is_followed_and_no_token_leaves_for_another_host(
    make_client: MakeClient, kind: MessageKind, status: int
) -> None:
    with Server(OK) as elsewhere, Server(answer(status, location=f"{elsewhere.url}/steal")) as server:
        found = make_client(server.url).deliver(message(kind))
    assert elsewhere.connections == 0
    assert len(server.requests) == 1
    assert found.verdict is Verdict.UNFIT
    assert found.detail.endswith(f"answered {status} to {elsewhere.url}/steal")


def test_a_record_lookup_follows_no_redirect_either(make_client: MakeClient) -> None:
    with Server(OK) as elsewhere, Server(answer(409), answer(302, location=elsewhere.url)) as server:
        assert make_client(server.url).deliver(message()).verdict is Verdict.RETRY_LIMITED
    assert elsewhere.connections == 0


@pytest.mark.parametrize("location", ["//", "http://[", "http://\xff", "\\\\", "http://a..b:99999/", "\x01"])
def test_a_redirect_to_nonsense_is_still_a_redirect(make_client: MakeClient, location: str) -> None:
    with Server(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode()) as server:
        found = make_client(server.url).deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.status == 302


ECHOES: dict[str, Step] = {
    "body": answer(422, f"bad token {TOKEN}!".encode()),
    "body of Bearer": answer(400, f'{{"Authorization":"Bearer {TOKEN}"}}'.encode()),
    "body escaped": answer(400, TOKEN.replace("/", "\\/").encode()),
    "body percent-encoded": answer(400, quote(TOKEN, safe="").encode()),
    "at the 500th character": answer(400, b"x" * 480 + TOKEN.encode()),
    "many times": answer(400, TOKEN.encode() * 1000),
    "location": answer(302, location=f"http://elsewhere/?token={TOKEN}"),
    "status line": lambda peer: peer.send(f"HTTP/1.1 {TOKEN}\r\n\r\n".encode()),
    "version": lambda peer: peer.send(f"{TOKEN} 200 OK\r\n\r\n".encode()),
    "reason": f"HTTP/1.1 500 {TOKEN}\r\nContent-Length: 0\r\n\r\n".encode(),
    "broken header": lambda peer: peer.send(f"HTTP/1.1 400 No\r\nX: y\r\n{TOKEN}\r\n: {TOKEN}\r\n\r\n{TOKEN}".encode()),
    "content length": lambda peer: peer.send(f"HTTP/1.1 500 x\r\nContent-Length: 1, 2{TOKEN}\r\n\r\n".encode()),
    "chunk size": lambda peer: peer.send(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n".encode()),
    "retry after": answer(503, retry_after=TOKEN),
    "encoding": answer(400, b"x", content_encoding=TOKEN),
    "401": answer(401, TOKEN.encode()),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_token_that_is_echoed_reaches_neither_an_answer_nor_the_log(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, echo: Step
) -> None:
    caplog.set_level(logging.DEBUG)
    with Server(echo) as server:
        found = make_client(server.url, deadline_seconds=1.0).deliver(message())
    for secret in (TOKEN, TOKEN[:32]):
        assert secret not in repr(found)
        assert secret not in caplog.text


def test_a_record_that_echoes_the_token_does_not_bring_it_into_an_answer(make_client: MakeClient) -> None:
    with Server(answer(409), answer(200, f'{{"mediaType": "{TOKEN}"}}'.encode())) as server:
        found = make_client(server.url).deliver(message())
    assert found.verdict is Verdict.PARK
    assert TOKEN not in repr(found)


def test_another_json_web_token_in_an_answer_is_hidden_too(make_client: MakeClient) -> None:
    other = MintedTokens("k" * 32).token_for("bob")
    with Server(answer(400, f"not {other}, nor {other[:30]}".encode())) as server:
        assert make_client(server.url).deliver(message()).excerpt == "not [token], nor [token]"


def test_no_secret_is_in_a_repr() -> None:
    static, minted = StaticToken(TOKEN), MintedTokens(TOKEN)
    client = AnnotationsClient("http://127.0.0.1:1/base", static)
    assert repr(client) == "AnnotationsClient(http://127.0.0.1:1/base)"
    assert not any(TOKEN in repr(one) for one in (static, minted, client))
