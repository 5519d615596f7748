"""The issuer's keys: when they are asked for, who waits for that, and how little a hostile or dead issuer can do."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.errors import Unauthorized, Unavailable
from app.http_exchange.responses import ConnectError, ProtocolError, ReadError
from app.web.auth.jwks import COOL_DOWN_SECONDS, FRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, PublishedKeys
from app.web.auth.jwks_document import MAX_BYTES, IssuerDocument
from tests.annotations.servers import Peer, Server, Step, answer
from tests.annotations.test_tls import certificate as tls_certificate
from tests.annotations.test_tls import serving
from tests.conftest import Clock
from tests.eventually import eventually

KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key() for _ in range(2)]


def entry(number: int, key_id: str, **members: Any) -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(KEYS[number], as_dict=True) | {"kid": key_id} | members


def document(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


class Issuer:
    """What an issuer publishes now, or the error that a look at it ends with; counts the looks."""

    def __init__(self, published: bytes | Exception) -> None:
        self.published = published
        self.looks = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def look(self) -> bytes:
        self.looks += 1
        self.may_answer.wait(30)
        if isinstance(self.published, Exception):
            raise self.published
        return self.published


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(document(entry(0, "first")))


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> PublishedKeys:
    return PublishedKeys(issuer.look, "RS256", lambda: clock.seconds)


def test_a_known_key_is_not_asked_for_again(keys: PublishedKeys, issuer: Issuer) -> None:
    for _ in range(5):
        assert keys.key("first") == KEYS[0]
    assert issuer.looks == 1


def test_unknown_keys_are_refused_without_a_fetch_within_the_cool_down(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    keys.key("first")
    for number in range(50):
        with pytest.raises(Unauthorized):
            keys.key(f"guess {number}")
    assert issuer.looks == 1
    clock.advance(COOL_DOWN_SECONDS)
    for number in range(50):
        with pytest.raises(Unauthorized):
            keys.key(f"guess {number}")
    assert issuer.looks == 2


@pytest.mark.parametrize("key_id", [None, "", 7, ["first"], {"first": 1}])
def test_a_token_that_names_no_key_is_refused_without_a_look(
    keys: PublishedKeys, issuer: Issuer, key_id: object
) -> None:
    with pytest.raises(Unauthorized):
        keys.key(key_id)
    assert issuer.looks == 0


def test_a_new_key_is_found_after_the_cool_down(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    keys.key("first")
    issuer.published = document(entry(1, "second"), entry(0, "first"))
    clock.advance(COOL_DOWN_SECONDS)
    assert keys.key("second") == KEYS[1]
    assert keys.key("first") == KEYS[0]


def test_a_withdrawn_key_is_refused_once_the_known_ones_have_been_looked_up_again(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    keys.key("first")
    issuer.published = document(entry(1, "second"))
    clock.advance(FRESH_SECONDS)
    assert keys.key("first") == KEYS[0]  # nobody waits for the look that this began
    eventually(lambda: issuer.looks == 2)
    assert keys.key("second") == KEYS[1]
    with pytest.raises(Unauthorized):
        keys.key("first")


def test_a_key_that_was_withdrawn_while_nobody_asked_is_not_used_once_more(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    keys.key("first")
    issuer.published = document(entry(1, "second"))
    clock.advance(2 * FRESH_SECONDS)
    with pytest.raises(Unauthorized):
        keys.key("first")


def test_known_keys_outlast_an_outage_of_the_issuer_but_not_for_ever(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    keys.key("first")
    issuer.published = ConnectError("down")
    clock.advance(FRESH_SECONDS + STALE_SECONDS - 1)
    assert keys.key("first") == KEYS[0]
    clock.advance(2)
    with pytest.raises(Unavailable):
        keys.key("first")


def test_an_issuer_that_is_down_is_asked_again_after_a_while_only(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    issuer.published = ConnectError("down")
    for _ in range(20):
        with pytest.raises(Unavailable) as refusal:
            keys.key("first")
        assert 0 < refusal.value.retry_after <= RETRY_SECONDS
    assert issuer.looks == 1
    issuer.published = document(entry(0, "first"))
    clock.advance(RETRY_SECONDS)
    assert keys.key("first") == KEYS[0]


@pytest.mark.parametrize("published", [b"<html>", b"[" * 100_000, b"[]", b'{"keys": 7}', b'{"keys": []}', b"\xff", b""])
def test_an_answer_without_keys_leaves_the_known_ones_alone(
    keys: PublishedKeys, issuer: Issuer, clock: Clock, published: bytes
) -> None:
    keys.key("first")
    issuer.published = published
    clock.advance(COOL_DOWN_SECONDS)
    with pytest.raises(Unavailable):
        keys.key("second")
    assert issuer.looks == 2
    assert keys.key("first") == KEYS[0]


def test_what_is_no_key_for_the_algorithm_is_passed_over(issuer: Issuer, keys: PublishedKeys) -> None:
    curve = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
    others: list[Any] = [
        *(None, 7, "first", [], {}, {"kid": "first"}, {"kid": ["first"], "kty": "RSA"}),
        {"kid": "first", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "first", "kty": "RSA", "n": "!", "e": 7},
        curve | {"kid": "first"},
        entry(1, "first", use="enc"),
        entry(1, "first", alg="PS256"),
        entry(1, ""),
    ]
    issuer.published = document(*others, entry(0, "first", use="sig", alg="RS256"))
    assert keys.key("first") == KEYS[0]


def test_of_many_who_need_a_silent_issuer_only_one_is_kept_waiting(keys: PublishedKeys, issuer: Issuer) -> None:
    issuer.may_answer.clear()
    waited = []

    def ask(number: int) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            keys.key(f"key {number}")
        waited.append(time.monotonic() - began)

    with ThreadPoolExecutor(16) as clients:
        asking = [clients.submit(ask, number) for number in range(16)]
        eventually(lambda: len(waited) == 15, seconds=4)
        issuer.published = ReadError("no answer")
        issuer.may_answer.set()
        for each in asking:
            each.result()
    assert issuer.looks == 1


def test_there_is_never_more_than_one_fetch_at_a_time(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    keys.key("first")
    clock.advance(FRESH_SECONDS)
    issuer.may_answer.clear()
    for _ in range(5):
        keys.key("first")
        with pytest.raises(Unavailable):
            keys.key("second")
        clock.advance(COOL_DOWN_SECONDS + RETRY_SECONDS)
    issuer.may_answer.set()
    assert issuer.looks == 2


def test_many_who_start_together_all_get_the_keys_of_an_issuer_nearby(keys: PublishedKeys, issuer: Issuer) -> None:
    with ThreadPoolExecutor(16) as clients:
        assert list(clients.map(keys.key, ["first"] * 16)) == [KEYS[0]] * 16
    assert issuer.looks == 1


def test_nobody_with_a_known_key_waits_while_it_is_looked_up_again(
    keys: PublishedKeys, issuer: Issuer, clock: Clock
) -> None:
    keys.key("first")
    issuer.may_answer.clear()
    clock.advance(FRESH_SECONDS)
    for _ in range(20):
        assert keys.key("first") == KEYS[0]
    eventually(lambda: issuer.looks == 2)
    issuer.may_answer.set()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"


def pour(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    peer.pour(bytes(1 << 16), 1000)


def stop_inside(peer: Peer) -> None:
    peer.send(HEAD + b"{")
    peer.stall()


def drip_the_head(peer: Peer) -> None:
    peer.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 9000)


def drip_the_body(peer: Peer) -> None:
    peer.send(HEAD)
    peer.drip(b"x" * 9000)


FAULTS: dict[str, tuple[Step, type[Exception]]] = {
    "error": (answer(500, b"{}"), ValueError),
    "redirect": (answer(302, location="http://127.0.0.1:1/keys"), ValueError),
    "too long": (answer(200, bytes(MAX_BYTES + 1)), ValueError),
    "without end": (pour, ValueError),
    "cut off": (lambda peer: peer.send(HEAD + b"{}"), ReadError),
    "no HTTP": (lambda peer: peer.send(b"hello\r\n\r\n"), ProtocolError),
    "reset": (Peer.reset, ReadError),
    "stalled": (Peer.stall, ReadError),
    "stalled inside": (stop_inside, ReadError),
    "dripping head": (drip_the_head, ReadError),
    "dripping body": (drip_the_body, ReadError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fetch_ends_in_time_and_reads_no_more_than_it_may(fault: str) -> None:
    step, error = FAULTS[fault]
    began = time.monotonic()
    with Server(step) as server, pytest.raises(error):
        IssuerDocument(f"{server.url}/keys", 0.5).fetch()
    assert time.monotonic() - began < 5
    assert server.connections == 1
    assert all(peer.sent < 64_000_000 for peer in server.peers)


def test_a_fetch_asks_for_the_path_and_query_that_are_set_and_nothing_else() -> None:
    with Server(answer(200, b"{}")) as server:
        assert IssuerDocument(f"{server.url}/keys?tenant=a", 5).fetch() == b"{}"
        assert IssuerDocument(server.url, 5).fetch() == b"{}"
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/keys?tenant=a"), ("GET", "/")]
    assert "authorization" not in server.requests[0].headers


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Server(answer(200, b"{}")) as server:
        assert IssuerDocument(server.url, 5).fetch() == b"{}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return tls_certificate(tmp_path, "127.0.0.1")


def test_an_issuer_with_a_certificate_that_nobody_signed_is_not_believed(certificate: Path) -> None:
    with (
        Server(answer(200, b"{}"), tls=serving(certificate)) as server,
        pytest.raises(ConnectError, match="certificate verify failed"),
    ):
        IssuerDocument(server.url, 5).fetch()


def test_a_fetch_over_tls_is_bounded_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Server(answer(200, b"{}"), drip_the_head, tls=serving(certificate)) as server:
        assert IssuerDocument(server.url, 5).fetch() == b"{}"
        began = time.monotonic()
        with pytest.raises(ReadError, match="timed out"):
            IssuerDocument(server.url, 0.5).fetch()
        assert time.monotonic() - began < 5
