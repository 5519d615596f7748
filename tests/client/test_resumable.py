"""The client's resumable uploads against servers with scripted responses: where it continues, and when not."""

import json
import os
import time
from pathlib import Path

import pytest

from app.client.options import UploadOptions
from app.client.unfinished import MAX_AGE_SECONDS, UnfinishedUploads, state_folder
from tests.annotations.servers import Step, answer
from tests.client.attempt import CONTENT, MISSING, TOKEN, Attempt, document, record

SIZE = len(CONTENT)
PART = 4096
CREATED = answer(201, location="/somewhere/uploads/abc")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GONE = answer(404, b"{}")
OFFSETS = (PART, 2 * PART, SIZE)


def took(offset: int) -> bytes:
    return answer(204, upload_offset=str(offset))


def state(offset: int, name: str = "receiving", **more: object) -> bytes:
    told = {"state": name, "offset": offset, "length": SIZE, "media": None, "duplicate": None, "problem": None}
    return document(told | more)


COMPLETE = state(SIZE, "complete", media=record(), duplicate=False)


def attempt(folder: Path, *steps: Step, **options: object) -> Attempt:
    return Attempt(folder, *steps, part_bytes=PART, options=UploadOptions(**({"detect": False} | options)))  # type: ignore[arg-type]


def test_a_file_is_asked_for_and_then_sent_in_parts(tmp_path: Path) -> None:
    sent = attempt(tmp_path, MISSING, CREATED, *map(took, OFFSETS), COMPLETE)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at is None
    assert sent.waits == []
    methods = [request.split(" ")[0] for request in sent.requests]
    assert methods == ["GET", "POST", "PATCH", "PATCH", "PATCH", "GET"]
    assert sent.requests[2:] == ["PATCH /uploads/abc"] * 3 + ["GET /uploads/abc"]
    parts = sent.sent[2:5]
    assert b"".join(part.body for part in parts) == CONTENT
    assert [part.headers["upload-offset"] for part in parts] == ["0", str(PART), str(2 * PART)]
    assert {part.headers["content-type"] for part in parts} == {"application/offset+octet-stream"}
    assert {part.headers["authorization"] for part in sent.sent} == {f"Bearer {TOKEN}"}
    assert sent.told.counts == sorted(sent.told.counts)
    assert sent.told.counts[-1] == SIZE


def test_the_upload_s_metadata_says_what_to_do_with_the_file(tmp_path: Path) -> None:
    sent = attempt(tmp_path, MISSING, CREATED, *map(took, OFFSETS), COMPLETE, detect=True, confidence=0.5, rerun=True)
    created = sent.sent[1].headers
    assert created["upload-length"] == str(SIZE)
    assert created["upload-metadata"] == "filename cGhvdG8uanBn,detect dHJ1ZQ==,confidence MC41,rerun dHJ1ZQ=="


def test_a_name_that_is_no_utf_8_is_sent_as_it_can_be_shown() -> None:
    assert UploadOptions().metadata(os.fsdecode(b"\xe9.png")).startswith("filename 77+9LnBuZw==,")


def test_after_a_break_it_goes_on_from_what_the_service_has(tmp_path: Path) -> None:
    rest = (MISSING, HEAD, state(PART + 7), took(2 * PART + 7), took(SIZE), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(503), *rest)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at == PART + 7
    assert sent.told.offsets == [PART + 7]
    assert sent.requests[4:7] == [sent.requests[0], "HEAD /uploads/abc", "GET /uploads/abc"]
    assert sent.sent[7].headers["upload-offset"] == str(PART + 7)
    assert sent.sent[7].body == CONTENT[PART + 7 :][:PART]


def test_a_wrong_offset_is_answered_with_the_right_one_and_it_goes_on_from_there(tmp_path: Path) -> None:
    wrong = answer(409, b"{}", upload_offset=str(PART + 9))
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), wrong, took(2 * PART + 9), took(SIZE), COMPLETE)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at == PART + 9
    assert sent.waits == []
    assert sent.sent[4].headers["upload-offset"] == str(PART + 9)


def test_an_offset_below_the_one_that_was_acknowledged_is_asked_about(tmp_path: Path) -> None:
    wrong = answer(409, b"{}", upload_offset="5")
    rest = (MISSING, HEAD, state(5), took(5 + PART), took(5 + 2 * PART), took(SIZE), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), wrong, *rest)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at == 5
    assert len(sent.waits) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_is_gone_begins_anew(tmp_path: Path, status: int) -> None:
    again = (MISSING, answer(status), answer(status, b"{}"), CREATED, *map(took, OFFSETS), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(503), *again)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at is None
    assert sent.sent[8].headers["upload-offset"] == "0"


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_goes_between_two_parts_begins_anew(tmp_path: Path, status: int) -> None:
    again = (MISSING, CREATED, *map(took, OFFSETS), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(status, b"{}"), *again)
    assert sent.result.outcome == "uploaded"
    assert len(sent.waits) == 1


@pytest.mark.parametrize("status", [408, 423, 502, 503])
def test_a_failure_that_may_pass_leaves_the_upload_as_it_is(tmp_path: Path, status: int) -> None:
    rest = (MISSING, HEAD, state(PART), took(2 * PART), took(SIZE), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(status, b"{}"), *rest)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at == PART
    assert len(sent.waits) == 1


@pytest.mark.parametrize("refused", [405, 501])
def test_a_proxy_that_refuses_head_keeps_nobody_from_going_on(tmp_path: Path, refused: int) -> None:
    rest = (MISSING, answer(refused), state(PART), took(2 * PART), took(SIZE), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(503), *rest)
    assert sent.result.outcome == "uploaded"
    assert sent.result.resumed_at == PART


def test_attempts_are_counted_from_the_last_one_that_brought_bytes(tmp_path: Path) -> None:
    breaks = [step for offset in range(1, 9) for step in (MISSING, HEAD, state(offset), answer(503))]
    rest = (MISSING, HEAD, state(9), took(9 + PART), took(9 + 2 * PART), took(SIZE), COMPLETE)
    sent = attempt(tmp_path, MISSING, CREATED, answer(503), *breaks, *rest)
    assert sent.result.outcome == "uploaded"
    assert len(sent.waits) == 9
    assert max(sent.waits) < 2  # each after a first failure


def test_attempts_that_bring_nothing_end(tmp_path: Path) -> None:
    stuck = [step for _ in range(9) for step in (MISSING, HEAD, state(7), answer(503))]
    sent = attempt(tmp_path, MISSING, CREATED, answer(503), *stuck)
    assert sent.result.outcome == "failed"
    assert len(sent.waits) == 3


def test_a_refusal_is_told_from_the_answer_to_the_part(tmp_path: Path) -> None:
    refused = answer(415, json.dumps({"detail": "no photo"}).encode())
    sent = attempt(tmp_path, MISSING, CREATED, refused)
    assert sent.result.outcome == "failed"
    assert sent.result.reason == "415: no photo"
    assert sent.waits == []


def test_a_refusal_whose_answer_was_lost_is_told_from_the_upload(tmp_path: Path) -> None:
    problem = {"status": 409, "title": "taken", "detail": "other content"}
    rest = (MISSING, answer(409), state(SIZE, "failed", problem=problem))
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(502), *rest)
    assert sent.result.outcome == "failed"
    assert sent.result.reason == "409: other content"


def test_bytes_that_are_all_there_are_not_sent_again_when_the_last_answer_was_lost(tmp_path: Path) -> None:
    sent = attempt(tmp_path, MISSING, CREATED, took(PART), answer(502), MISSING, HEAD, COMPLETE)
    assert sent.result.outcome == "uploaded"
    assert len(sent.requests) == 7


def test_a_file_that_changes_between_two_parts_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"

    def touch(count: int) -> None:
        if count:
            os.utime(path, ns=(1, 1))

    sent = Attempt(tmp_path, MISSING, CREATED, took(PART), part_bytes=PART, on_bytes=touch)
    assert sent.result.outcome == "failed"
    assert "changed while it was sent" in (sent.result.reason or "")
    assert len(sent.requests) == 3


@pytest.mark.parametrize("location", ["", "/uploads/", "https://elsewhere.example/uploads/..%2f"])
def test_an_upload_without_a_usable_address_is_told_as_such(tmp_path: Path, location: str) -> None:
    sent = attempt(tmp_path, MISSING, answer(201, location=location))
    assert sent.result.outcome == "failed"
    assert "address" in (sent.result.reason or "")


def test_what_is_remembered_is_there_for_the_next_one_and_for_no_second_one_at_once(tmp_path: Path) -> None:
    unfinished = UnfinishedUploads(tmp_path / "deep" / "folder")
    with unfinished.open("a") as first:
        first.save("abc")
        with unfinished.open("a") as second, unfinished.open("b") as other:
            assert second.upload_id is None
            assert other.upload_id is None
    with unfinished.open("a") as again:
        assert again.upload_id == "abc"
        again.delete()
    assert list((tmp_path / "deep" / "folder").iterdir()) == []


def test_what_no_service_has_any_more_is_forgotten(tmp_path: Path) -> None:
    unfinished = UnfinishedUploads(tmp_path)
    with unfinished.open("old") as old:
        old.save("abc")
    [path] = tmp_path.iterdir()
    os.utime(path, (0, time.time() - MAX_AGE_SECONDS - 1))
    with unfinished.open("new"):
        assert not path.exists()


def test_a_folder_that_cannot_be_written_to_hinders_no_upload(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with UnfinishedUploads(tmp_path / "file" / "below").open("a") as found:
        found.save("abc")
        assert found.upload_id == "abc"


def test_the_state_folder_is_where_the_user_wants_it(tmp_path: Path) -> None:
    assert state_folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "detections" / "uploads"
    assert state_folder({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/detections/uploads"
