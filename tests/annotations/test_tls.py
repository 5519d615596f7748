"""https: trusted certificates, and the same deadline."""

import datetime
import ipaddress
import ssl
import time
from pathlib import Path

import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.annotations.classify import SentRequest, classify_error
from app.http_exchange.deadline import RequestState
from app.http_exchange.responses import transport_error
from app.outbox.messages import Verdict
from tests.annotations.conftest import MakeClient, message
from tests.annotations.servers import Peer, Server, answer

OK = answer(200, b"{}")


def certificate(folder: Path, address: str) -> Path:
    """Write a self-signed certificate of an address and its key to a PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{address}.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return pem


def serving(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return certificate(tmp_path, "127.0.0.1")


def test_a_trusted_service_is_spoken_to_over_one_connection(make_client: MakeClient, ours: Path) -> None:
    with Server(OK, tls=serving(ours)) as server:
        client = make_client(server.url, ca_file=str(ours))
        assert [client.deliver(message()).verdict for _ in range(5)] == [Verdict.DELIVERED] * 5
    assert len(server.requests) == 5
    assert server.connections == 1


def test_an_untrusted_certificate_is_unfit_before_the_token_is_sent(make_client: MakeClient, ours: Path) -> None:
    with Server(OK, tls=serving(ours)) as server:
        found = make_client(server.url).deliver(message())
    assert server.requests == []
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True
    assert found.outcome_unknown is False
    assert "certificate verify failed" in found.detail


def test_a_certificate_of_another_host_is_unfit(make_client: MakeClient, tmp_path: Path) -> None:
    theirs = certificate(tmp_path, "127.0.0.2")
    with Server(OK, tls=serving(theirs)) as server:
        found = make_client(server.url, ca_file=str(theirs)).deliver(message())
    assert server.requests == []
    assert found.verdict is Verdict.UNFIT


def test_a_service_that_speaks_no_tls_is_unfit(make_client: MakeClient) -> None:
    with Server(OK) as server:
        url = server.url.replace("http:", "https:")
        found = make_client(url, connect_timeout=0.3).deliver(message())
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True


def test_a_service_that_wants_a_certificate_of_ours_is_unfit(make_client: MakeClient, ours: Path) -> None:
    wanting = serving(ours)
    wanting.verify_mode = ssl.CERT_REQUIRED
    wanting.maximum_version = ssl.TLSVersion.TLSv1_2  # which says so before the request
    with Server(OK, tls=wanting) as server:
        found = make_client(server.url, ca_file=str(ours)).deliver(message())
    assert server.requests == []
    assert found.verdict == Verdict.UNFIT
    assert found.unsent is True


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ssl.SSLError(1, "tlsv13 alert certificate required"), Verdict.UNFIT),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), Verdict.RETRY),
    ],
    ids=["refused", "cut"],
)
def test_tls_that_fails_after_the_request_leaves_its_outcome_unknown(error: ssl.SSLError, verdict: Verdict) -> None:
    wrapped = requests.exceptions.SSLError(urllib3.exceptions.SSLError(error))
    failed = transport_error(wrapped, RequestState(connected_anew=True, sent=True), "https://annotations.test:443")
    sent = SentRequest(message(), "POST /api/media", outcome_unknown=False, one_token=False, now=0.0)
    found = classify_error(sent, failed, sent_before=True)
    assert found.verdict == verdict
    assert found.outcome_unknown is True
    assert found.unsent is False


def drip(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    peer.drip(b"x" * 500)


def test_a_slow_drip_over_tls_is_cut_at_the_deadline(make_client: MakeClient, ours: Path) -> None:
    with Server(drip, tls=serving(ours)) as server:
        client = make_client(server.url, ca_file=str(ours), deadline_seconds=0.5)
        started = time.monotonic()
        found = client.deliver(message())
        assert time.monotonic() - started < 2.5
    assert found.verdict == Verdict.RETRY
    assert found.outcome_unknown is True


def test_a_cut_off_tls_answer_leaves_the_outcome_unknown(make_client: MakeClient, ours: Path) -> None:
    with Server(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nh"), tls=serving(ours)) as server:
        found = make_client(server.url, ca_file=str(ours)).deliver(message())
    assert found.verdict == Verdict.RETRY
    assert found.outcome_unknown is True
