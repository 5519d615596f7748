"""An issuer whose keys cannot be had: tokens are refused as unavailable, and the service lives on."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.annotations.servers import Peer, Server
from tests.system.service import Service

THREADS = 16
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def silent_issuer() -> Iterator[Server]:
    """Takes connections and requests, and never says anything."""
    with Server(Peer.stall) as server:
        yield server


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str, silent_issuer: Server) -> Iterator[Service]:
    keys = {"JWT_SECRET_KEY": "", "JWT_JWKS_URL": f"{silent_issuer.url}/keys", "JWT_ALGORITHM": "RS256"}
    service = Service(tmp_path, sqlite_url, None, **keys, DETECTION="off")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def ask(service: Service, key_id: str) -> tuple[int, str, float]:
    """Status, Retry-After and seconds of a request with a token that names this key."""
    token = jwt.encode({"exp": int(time.time()) + 600, "sub": "ada"}, KEY, "RS256", headers={"kid": key_id})
    began = time.monotonic()
    answer = service.request("GET", "/media", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.headers.get("Retry-After", ""), time.monotonic() - began


def test_a_silent_issuer_takes_no_more_than_one_thread(service: Service, silent_issuer: Server) -> None:
    with ThreadPoolExecutor(2 * THREADS) as clients:
        asking = [clients.submit(ask, service, f"key {number}") for number in range(2 * THREADS)]
        while not silent_issuer.requests:
            time.sleep(0.01)
        slowest = 0.0
        while not all(each.done() for each in asking):
            began = time.monotonic()
            assert service.request("GET", "/healthz").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
        answers = [each.result() for each in asking]
    assert slowest < 3
    assert {status for status, _, _ in answers} == {503}
    assert all(int(retry_after) > 0 for _, retry_after, _ in answers)
    assert sum(seconds > 4 for _, _, seconds in answers) == 1
    assert len(silent_issuer.requests) == 1
