"""The upload client against servers with scripted responses: what is retried, and what is reported."""

import json
import os
from pathlib import Path

import pytest

from app.client.options import UploadOptions
from app.client.service import RemoteService
from app.client.unfinished import UnfinishedUploads
from app.client.upload import Uploader
from tests.annotations.servers import Peer, Server, answer
from tests.client.attempt import CONTENT, ID, MISSING, STORED, TOKEN, Attempt, Observer, document, record


def test_a_file_is_looked_for_and_then_sent_whole(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, MISSING, STORED)
    assert attempt.result.outcome == "uploaded"
    assert attempt.result.media_id == ID
    assert attempt.waits == []
    assert attempt.requests == [f"GET /media/{ID}", "POST /media"]
    assert attempt.last is not None
    assert attempt.last.body == CONTENT
    assert attempt.last.headers["authorization"] == f"Bearer {TOKEN}"
    assert attempt.told.counts == sorted(attempt.told.counts)
    assert attempt.told.counts[-1] == len(CONTENT)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_failure_that_may_pass_is_tried_again(tmp_path: Path, status: int) -> None:
    attempt = Attempt(tmp_path, MISSING, answer(status), MISSING, STORED)
    assert attempt.result.outcome == "uploaded"
    assert len(attempt.waits) == 1


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422, 507])
def test_a_refusal_is_not_tried_again_and_leaves_the_list(tmp_path: Path, status: int) -> None:
    body = json.dumps({"detail": "for this reason"}).encode()
    attempt = Attempt(tmp_path, MISSING, answer(status, body), STORED)
    assert attempt.result.outcome == "failed"
    assert attempt.result.ends_list is False
    assert attempt.result.reason == f"{status}: for this reason"
    assert attempt.waits == []


@pytest.mark.parametrize("status", [401, 403])
def test_without_access_the_list_ends(tmp_path: Path, status: int) -> None:
    attempt = Attempt(tmp_path, answer(status))
    assert attempt.result.outcome == "failed"
    assert attempt.result.ends_list is True
    assert attempt.requests == [f"GET /media/{ID}"]


def test_the_wait_is_as_long_as_the_service_asks_for(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, answer(503, retry_after="40"), answer(503, retry_after="nonsense"), MISSING, STORED)
    assert attempt.result.outcome == "uploaded"
    assert attempt.waits[0] == 40
    assert attempt.waits[1] < 5
    assert "503" in attempt.told.reasons[0]


def test_after_so_many_tries_it_is_given_up(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, answer(503))
    assert attempt.result.outcome == "failed"
    assert len(attempt.requests) == 3


def test_what_is_there_with_equal_bytes_is_not_sent(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, document(record(mediaStatus=3)))
    assert attempt.result.outcome == "already there"
    assert attempt.result.status == 3
    assert attempt.requests == [f"GET /media/{ID}"]


@pytest.mark.parametrize("other", [{"checksum": "0" * 32}, {"sizeBytes": 1}])
def test_what_is_there_with_other_bytes_is_told_and_not_sent(tmp_path: Path, other: dict[str, object]) -> None:
    attempt = Attempt(tmp_path, document(record(**other)))
    assert attempt.result.outcome == "failed"
    assert "another file" in (attempt.result.reason or "")
    assert attempt.requests == [f"GET /media/{ID}"]


@pytest.mark.parametrize("without", [record(checksum=None), {k: v for k, v in record().items() if k != "checksum"}])
def test_what_is_there_without_a_checksum_is_sent_to_be_compared(tmp_path: Path, without: dict[str, object]) -> None:
    attempt = Attempt(tmp_path, document(without), document({"media": without, "duplicate": True}))
    assert attempt.result.outcome == "duplicate"


def test_a_run_that_somebody_else_began_meanwhile_is_as_good(tmp_path: Path) -> None:
    begun = document(record(mediaStatus=2, run={"id": 1}))
    attempt = Attempt(tmp_path, document(record()), answer(409, b"{}"), begun, detect=True)
    assert attempt.result.outcome == "already there"
    assert attempt.result.status == 2


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    with Server(document(record())) as elsewhere:
        attempt = Attempt(tmp_path, answer(301, location=f"{elsewhere.url}/media/{ID}"))
        assert elsewhere.requests == []
    assert elsewhere.url in (attempt.result.reason or "")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_an_address_of_something_else_is_told_as_such(tmp_path: Path, body: bytes) -> None:
    attempt = Attempt(tmp_path, answer(200, body))
    assert attempt.result.outcome == "failed"
    assert "address" in (attempt.result.reason or "")


def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    def pour(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        peer.pour(b" " * 65536, 100_000)

    assert Attempt(tmp_path, pour).result.outcome == "failed"


def test_a_file_that_is_cut_while_it_is_sent_is_told_as_such(tmp_path: Path) -> None:
    large = CONTENT + bytes(1 << 20)
    path = tmp_path / "large.jpg"
    path.write_bytes(large)

    def cut_large(count: int) -> None:
        if count:
            os.truncate(path, count)

    waits: list[float] = []
    with Server(MISSING, STORED) as server, RemoteService(server.url, TOKEN, timeout=5) as service:
        uploader = Uploader(
            service, UploadOptions(detect=False), attempts=3, unfinished=UnfinishedUploads(None), sleep=waits.append
        )
        result = uploader.upload(path, Observer(cut_large))
    assert result.outcome == "failed"
    assert waits == []
    assert "was truncated" in (result.reason or "")


def test_a_file_that_changed_while_it_was_sent_is_told_as_such(tmp_path: Path) -> None:
    other = {"media": record(id="0" * 16), "duplicate": False}
    attempt = Attempt(tmp_path, MISSING, document(other, 201))
    assert attempt.result.outcome == "failed"
    assert "changed" in (attempt.result.reason or "")
