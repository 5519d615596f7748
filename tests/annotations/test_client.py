"""The client: what it sends, over how many connections, and which records it fetches."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import RecordsNotReadable, SettingsError, Unavailable
from app.formats.trace_context import traceparent_of
from app.outbox.messages import MessageKind, Verdict
from tests.annotations.conftest import MEDIA, TOKEN, MakeClient, message
from tests.annotations.servers import Peer, Server, answer
from tests.servers.ports import free_port

OK = answer(200, b"{}")


def test_a_create_is_sent_as_the_contract_says(make_client: MakeClient) -> None:
    create = message(MessageKind.CREATE)
    with Server(answer(201)) as server:
        make_client(server.url).deliver(create)
    (request,) = server.requests
    assert request.method == "POST"
    assert request.path == "/api/media"
    assert json.loads(request.body) == create.payload
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "idempotency-key": create.idempotency_key,
        "x-outbox-seq": "1",
        "x-outbox-epoch": "1",
        "x-outbox-time": "1970-01-01T00:00:00.000Z",
        "x-request-id": "request-7",
        "traceparent": traceparent_of("request-7", create.idempotency_key),
        "user-agent": "detections/0.1.0",
        "accept": "application/json",
        "accept-encoding": "identity",
    }


def test_epoch_and_time_of_a_message_go_with_it(make_client: MakeClient) -> None:
    with Server(answer(204)) as server:
        make_client(server.url).deliver(message(MessageKind.STATUS, epoch=3, changed_at=1_800_000_000.25))
    (request,) = server.requests
    assert request.headers["x-outbox-epoch"] == "3"
    assert request.headers["x-outbox-time"] == "2027-01-15T08:00:00.250Z"


def test_a_status_is_sent_as_the_contract_says(make_client: MakeClient) -> None:
    with Server(answer(204)) as server:
        make_client(server.url).deliver(message(MessageKind.STATUS))
    (request,) = server.requests
    assert request.method == "PUT"
    assert request.path == f"/api/media/{MEDIA}/status"
    assert json.loads(request.body) == {"mediaStatus": 2}
    assert request.headers["x-outbox-seq"] == "2"


def test_a_message_of_no_request_carries_no_request_id(make_client: MakeClient) -> None:
    with Server(OK) as server:
        make_client(server.url).deliver(message(request_id=None))
    assert server.requests[0].headers.keys().isdisjoint({"x-request-id", "traceparent"})


@pytest.mark.parametrize("base", ["", "/", "/prefix", "/prefix/", "/a/b//"])
def test_a_base_path_comes_before_every_path(make_client: MakeClient, base: str) -> None:
    with Server(answer(409), answer(404)) as server:
        make_client(server.url + base).deliver(message())
    expected = base.rstrip("/")
    assert [one.path for one in server.requests] == [f"{expected}/api/media", f"{expected}/api/media/{MEDIA}"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "annotations:8080",
        "ftp://host/",
        "http://",
        "http:///path",
        "http://host:port/",
        "http://user:pass@host/",
        "http://host/?a=b",
        "http://host/#part",
        "http://.host/",
        "http://a..b/",
        f"http://{'x' * 64}.test/",
        "http://[::1/",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(make_client: MakeClient, url: str) -> None:
    with pytest.raises(SettingsError, match="ANNOTATIONS_URL") as refused:
        make_client(url)
    assert "pass" not in str(refused.value)


def test_one_connection_serves_all_sends_of_a_thread(make_client: MakeClient) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with Server(OK, answer(204), chunked, answer(422, b"x" * 40_000), answer(500), OK) as server:
        client = make_client(server.url)
        for _ in range(20):
            client.deliver(message())
    assert len(server.requests) == 20
    assert server.connections == 1


def test_each_thread_has_a_connection_of_its_own(make_client: MakeClient) -> None:
    together = threading.Barrier(3)
    with Server(OK) as server, ThreadPoolExecutor(3) as pool:
        client = make_client(server.url)

        def send() -> None:
            together.wait()
            for _ in range(5):
                client.deliver(message())

        for future in [pool.submit(send) for _ in range(3)]:
            future.result()
    assert len(server.requests) == 15
    assert server.connections == 3


def test_a_closed_client_holds_no_connection_and_can_be_used_again(make_client: MakeClient) -> None:
    with Server(OK) as server:
        client = make_client(server.url)
        client.deliver(message())
        client.close()
        assert server.peers[0].gone.wait(5)
        assert client.deliver(message()).verdict is Verdict.DELIVERED
    assert server.connections == 2


def test_no_cookie_is_kept_or_sent(make_client: MakeClient) -> None:
    with Server(answer(200, set_cookie="a=b")) as server:
        client = make_client(server.url)
        client.deliver(message())
        client.deliver(message())
    assert server.connections == 1
    assert "cookie" not in server.requests[1].headers


def test_the_environment_changes_nothing(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logins = tmp_path / "netrc"
    logins.write_text("machine 127.0.0.1 login ada password lovelace\n")
    with Server(OK) as server, Server(OK) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NETRC", str(logins))
        make_client(server.url).deliver(message())
    assert proxy.connections == 0
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


class Tokens:
    """A token source that counts its calls."""

    def __init__(self) -> None:
        self.given: list[tuple[str, bool]] = []

    is_shared = False

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        self.given.append((user_id, fresh))
        return f"token-{len(self.given)}"


def test_a_refused_token_is_followed_by_a_fresh_one(make_client: MakeClient) -> None:
    tokens = Tokens()
    with Server(answer(401), OK) as server:
        found = make_client(server.url, tokens=tokens).deliver(message())
    assert found.verdict is Verdict.DELIVERED
    assert tokens.given == [("ada", False), ("ada", True)]
    assert [one.headers["authorization"] for one in server.requests] == ["Bearer token-1", "Bearer token-2"]


def test_a_fresh_token_is_tried_once_only(make_client: MakeClient) -> None:
    with Server(answer(401)) as server:
        found = make_client(server.url).deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.status == 401
    assert len(server.requests) == 2


def test_a_record_lookup_after_a_fresh_token_asks_for_no_fresher_one(make_client: MakeClient) -> None:
    with Server(answer(401), answer(409), answer(401)) as server:
        found = make_client(server.url).deliver(message())
    assert found.verdict == Verdict.RETRY_LIMITED
    assert len(server.requests) == 3


def test_the_idempotency_key_is_the_same_at_every_attempt_and_the_lookup_has_none(make_client: MakeClient) -> None:
    with Server(answer(401), answer(409), answer(404)) as server:
        make_client(server.url).deliver(message())
    first, second, look = (one.headers for one in server.requests)
    assert first["idempotency-key"] == second["idempotency-key"] == message().idempotency_key
    assert "idempotency-key" not in look
    assert look["x-request-id"] == "request-7"


def test_a_fetch_for_adoption_returns_the_record_of_the_service(make_client: MakeClient) -> None:
    known = {"id": MEDIA, "mediaType": "Image", "name": "Zürich"}
    with Server(answer(200, json.dumps(known).encode())) as server:
        assert make_client(server.url).fetch_for_adoption(MEDIA, "ada") == known
    (request,) = server.requests
    assert request.method == "GET"
    assert request.path == f"/api/media/{MEDIA}"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_fetch_for_adoption_returns_none_without_a_record(make_client: MakeClient, status: int) -> None:
    with Server(answer(status)) as server:
        assert make_client(server.url).fetch_for_adoption(MEDIA, "ada") is None


@pytest.mark.parametrize(
    "failure", [answer(500), answer(401), answer(302), answer(400), answer(200, b"[]"), b"garbage\r\n", Peer.reset]
)
def test_a_fetch_for_adoption_without_a_proper_answer_raises_unavailable(
    make_client: MakeClient, failure: bytes
) -> None:
    with Server(failure) as server, pytest.raises(Unavailable, match="annotations service") as raised:
        make_client(server.url).fetch_for_adoption(MEDIA, "ada")
    assert TOKEN not in repr(raised.value)


def test_a_fetch_for_adoption_from_a_service_that_is_down_raises_unavailable(make_client: MakeClient) -> None:
    with pytest.raises(Unavailable):
        make_client(f"http://127.0.0.1:{free_port()}").fetch_for_adoption(MEDIA, "ada")


@pytest.mark.parametrize("hostile", ["", ".", "..", "../users", "a/b", "a?b", "a#b", "%2e%2e", "é", "0" * 65, "a\r\nb"])
def test_what_cannot_be_an_id_is_not_asked_for(make_client: MakeClient, hostile: str) -> None:
    with Server(OK) as server:
        assert make_client(server.url).fetch_for_adoption(hostile, "ada") is None
    assert server.connections == 0


def test_an_answer_carries_the_first_500_characters_on_one_line(make_client: MakeClient) -> None:
    body = "é\x00\x1b[31m\u202e\r\n".encode() + b"x" * 9000
    with Server(answer(422, body)) as server:
        excerpt = make_client(server.url).deliver(message()).excerpt
    assert excerpt == "é [31m " + "x" * 493


def test_a_message_of_another_user_is_sent_with_a_token_of_theirs(make_client: MakeClient) -> None:
    tokens = Tokens()
    with Server(OK) as server:
        client = make_client(server.url, tokens=tokens)
        client.deliver(message())
        client.deliver(replace(message(), user_id="bob"))
    assert tokens.given == [("ada", False), ("bob", False)]


@pytest.mark.parametrize("told", [{"id": MEDIA, "mediaStatus": 3}, {}, {"mediaType": "Image"}])
def test_a_record_is_found_with_whatever_it_tells(make_client: MakeClient, told: dict[str, object]) -> None:
    with Server(answer(200, json.dumps(told).encode())) as server:
        assert make_client(server.url).fetch_record(MEDIA, "ada") == told


def test_a_record_that_is_not_there_is_none(make_client: MakeClient) -> None:
    for body, kind in ((b"", "text/html"), (b'{"title": "unknown media"}', "application/problem+json")):
        with Server(answer(404, body, content_type=kind)) as server:
            assert make_client(server.url).fetch_record(MEDIA, "ada") is None


@pytest.mark.parametrize("status", [401, 403, 405, 501, 302, 204, 200, 404])
def test_without_readable_records_nothing_is_known(make_client: MakeClient, status: int) -> None:
    """No GET, forbidden, a redirect, an empty answer, or HTML."""
    page = b"" if status == 204 else b"<!DOCTYPE html><title>Sign in</title>"
    with Server(answer(status, page, content_type="text/html")) as server, pytest.raises(RecordsNotReadable) as said:
        make_client(server.url).fetch_record(MEDIA, "ada")
    assert f"GET /api/media/{MEDIA} answered {status}" in str(said.value)


def test_the_record_of_another_item_tells_nothing_of_this_one(make_client: MakeClient) -> None:
    record = json.dumps({"id": "f" * 16, "mediaStatus": 3}).encode()
    with Server(answer(200, record)) as server, pytest.raises(RecordsNotReadable, match="another media item"):
        make_client(server.url).fetch_record(MEDIA, "ada")


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_service_that_cannot_answer_now_does_not_count_as_unreadable(make_client: MakeClient, status: int) -> None:
    with Server(answer(status)) as server, pytest.raises(Unavailable) as said:
        make_client(server.url).fetch_record(MEDIA, "ada")
    assert not isinstance(said.value, RecordsNotReadable)
    with pytest.raises(Unavailable, match="no connection"):
        make_client(f"http://127.0.0.1:{free_port()}").fetch_record(MEDIA, "ada")
