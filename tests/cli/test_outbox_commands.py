"""`flask outbox`: output, exit codes, and what each command does to messages."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from tests import fork_server
from tests.cli.conftest import Shell
from tests.cli.terminal import on_terminal
from tests.outbox.refusals import refused_for_long
from tests.paths import ROOT
from tests.reference.service import ReferenceService

pytestmark = pytest.mark.slow

UNKNOWN = "0123456789abcdef"
REFUSED = {"status": 422, "body": "no, thank you"}


def applied(annotations: ReferenceService) -> list[str]:
    """Return the media items whose messages were accepted, in order of acceptance."""
    return [entry["mediaId"] for entry in annotations.log() if entry["applied"]]


def parked(shell: Shell, annotations: ReferenceService, number: int) -> str:
    """Return a media item whose create was refused."""
    media_id = shell.upload(number)
    annotations.control(fail=REFUSED | {"times": 2, "match": {"mediaId": media_id}})
    shell.run("outbox", "flush", "--media", media_id, exit_code=1)
    refused_for_long(shell.settings["DATABASE_URL"], media_id)
    shell.run("outbox", "flush", "--media", media_id, exit_code=3)
    return media_id


def flask(shell: Shell, *arguments: str) -> subprocess.Popen[str]:
    """Run the command as a process."""
    return fork_server.Popen(
        [sys.executable, "-m", "flask", *arguments],
        cwd=ROOT,
        env=os.environ | shell.settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_flush_delivers_everything_that_waits(shell: Shell, annotations: ReferenceService) -> None:
    first, second = shell.upload(1), shell.upload(2)
    assert shell.json("outbox", "flush") == {"total": 2, "delivered": 2, "pending": 0, "parked": 0, "timedOut": False}
    assert sorted(applied(annotations)) == sorted([first, second])
    assert shell.json("outbox", "flush") == {"total": 0, "delivered": 0, "pending": 0, "parked": 0, "timedOut": False}


def test_a_flush_of_one_media_leaves_the_others(shell: Shell, annotations: ReferenceService) -> None:
    first, _second = shell.upload(1), shell.upload(2)
    assert shell.json("outbox", "flush", "--media", first)["delivered"] == 1
    assert applied(annotations) == [first]
    assert shell.json("outbox", "status")["pending"] == 1


def test_a_flush_of_a_media_that_has_no_messages_is_no_success(shell: Shell) -> None:
    shell.upload(1)
    result = shell.run("outbox", "flush", "--media", UNKNOWN, exit_code=4)
    assert result.stdout == ""
    assert f"The outbox has no messages of media item '{UNKNOWN}'." in result.stderr


def test_a_flush_does_not_wait_for_a_backoff(shell: Shell, annotations: ReferenceService) -> None:
    media_id = shell.upload(1)
    annotations.control(fail={"status": 500})
    assert shell.json("outbox", "flush", exit_code=1)["pending"] == 1
    assert shell.json("outbox", "flush")["delivered"] == 1
    assert applied(annotations) == [media_id]


def test_a_flush_says_that_messages_are_still_pending(shell: Shell, annotations: ReferenceService) -> None:
    shell.upload(1)
    annotations.stop()
    told = shell.json("outbox", "flush", exit_code=1)
    assert told == {"total": 1, "delivered": 0, "pending": 1, "parked": 0, "timedOut": False}
    told = shell.json("outbox", "flush", "--wait", "--timeout", "0.5", exit_code=1)
    assert told == {"total": 1, "delivered": 0, "pending": 1, "parked": 0, "timedOut": True}
    annotations.start()
    assert shell.json("outbox", "flush", "--wait", "--timeout", "30")["delivered"] == 1


def test_a_flush_says_that_media_are_parked(shell: Shell, annotations: ReferenceService) -> None:
    parked(shell, annotations, 1)
    told = shell.json("outbox", "flush", exit_code=3)
    assert told["pending"] == 0
    assert told["parked"] == 1


def test_a_flush_to_nowhere_says_so(lonely_shell: Shell) -> None:
    lonely_shell.upload(1)
    result = lonely_shell.run("outbox", "flush", "--wait", "--json", exit_code=1)
    assert "ANNOTATIONS_URL" in result.stderr
    assert json.loads(result.stdout)["pending"] == 1


def test_results_are_on_standard_output_and_all_else_is_not(shell: Shell) -> None:
    shell.upload(1)
    shell.settings["LOG_LEVEL"] = "debug"
    with flask(shell, "outbox", "flush", "--json") as command:
        output, messages = command.communicate(timeout=60)
    assert command.returncode == 0, messages
    assert json.loads(output)["delivered"] == 1
    assert '"event": "delivery"' in messages


def test_on_a_terminal_a_flush_is_a_bar_without_the_log(shell: Shell) -> None:
    shell.upload(1)
    code, told = on_terminal("outbox", "flush", environment=shell.settings)
    assert code == 0
    assert "delivering" in told
    assert '"event"' not in told


def test_on_a_terminal_a_flush_in_an_outage_says_once_and_in_words_what_is_wrong(
    shell: Shell, annotations: ReferenceService
) -> None:
    shell.upload(1)
    annotations.stop()
    code, told = on_terminal("outbox", "flush", "--wait", "--timeout", "3", columns=200, environment=shell.settings)
    assert code == 1
    assert '"event"' not in told
    assert told.count("circuit open: endpoint") == len(set(re.findall("circuit open: .*", told)))
    assert re.search("The circuit is (half-)?open: POST /api/media: no connection", told)


@pytest.mark.parametrize("command", [("flush",), ("status",), ("list",), ("prune",)])
def test_without_json_there_is_a_table_for_people(shell: Shell, command: tuple[str, ...]) -> None:
    shell.upload(1)
    output = shell.run("outbox", *command).stdout
    assert output.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(output)


def test_the_status_counts_what_waits(shell: Shell) -> None:
    empty = shell.json("outbox", "status")
    assert empty == {
        "pending": 0,
        "parked": 0,
        "oldestAgeSeconds": None,
        "deliveredLastHour": 0,
        "epoch": 1,
        "restoredAt": None,
        "circuit": {"state": "closed", "since": None, "retryAt": None, "reason": None},
        "held": [],
    }
    shell.upload(1)
    waiting = shell.json("outbox", "status")
    assert waiting["pending"] == 1
    assert 0 <= waiting["oldestAgeSeconds"] < 60
    shell.run("outbox", "flush")
    delivered = shell.json("outbox", "status")
    assert delivered["pending"] == 0
    assert delivered["deliveredLastHour"] == 1


def test_the_status_tells_of_an_open_circuit(shell: Shell, annotations: ReferenceService) -> None:
    for number in (1, 2):
        shell.upload(number)
    annotations.stop()
    shell.run("outbox", "flush", exit_code=1)
    circuit = shell.json("outbox", "status")["circuit"]
    assert circuit.keys() == {"state", "since", "retryAt", "reason"}
    assert circuit["state"] in ("open", "half-open")
    assert circuit["retryAt"].endswith("Z")
    assert circuit["reason"]


def test_a_held_user_is_told_of_by_the_status_and_by_a_flush(shell: Shell, annotations: ReferenceService) -> None:
    shell.upload(1)
    annotations.control(fail={"status": 403, "times": 100})
    flushed = shell.run("outbox", "flush", exit_code=1)
    [held] = shell.json("outbox", "status")["held"]
    assert held.keys() == {"userId", "since", "until", "reason", "waiting"}
    assert held["waiting"] == 1
    assert f"User {held['userId']} is held until" in flushed.stderr
    assert held["userId"] in shell.run("outbox", "status").stdout


def test_the_status_counts_parked_media_apart(shell: Shell, annotations: ReferenceService) -> None:
    parked(shell, annotations, 1)
    told = shell.json("outbox", "status")
    assert told["pending"] == 0
    assert told["parked"] == 1


def test_the_list_shows_messages_by_their_state(shell: Shell, annotations: ReferenceService) -> None:
    delivered = shell.upload(1)
    shell.run("outbox", "flush")
    refused = parked(shell, annotations, 2)
    waiting = shell.upload(3)

    def listed(*options: str) -> list[str]:
        return [row["mediaId"] for row in shell.json("outbox", "list", *options)]

    assert listed("--state", "pending") == [waiting]
    assert listed("--state", "parked") == [refused]
    assert listed("--state", "delivered") == [delivered]
    assert sorted(listed()) == sorted([delivered, refused, waiting])
    assert len(listed("--limit", "2")) == 2
    [row] = shell.json("outbox", "list", "--state", "parked")
    assert row["seq"] == 1
    assert row["kind"] == "create"
    assert row["state"] == "parked"
    assert row["payload"]["id"] == refused
    assert "422" in row["lastError"]


def test_a_media_is_shown_with_every_attempt(shell: Shell, annotations: ReferenceService) -> None:
    media_id = shell.upload(1)
    annotations.control(fail={"status": 500})
    shell.run("outbox", "flush", exit_code=1)
    shell.run("outbox", "flush")
    told = shell.json("outbox", "show", media_id)
    assert told["mediaId"] == media_id
    [message] = told["messages"]
    assert message["seq"] == 1
    assert message["kind"] == "create"
    assert message["state"] == "delivered"
    assert [(attempt["status"], attempt["verdict"]) for attempt in message["attempts"]] == [
        (500, "retry"),
        (201, "delivered"),
    ]
    table = shell.run("outbox", "show", media_id).stdout
    assert "500" in table
    assert "201" in table


@pytest.mark.parametrize("command", ["show", "skip", "retry"])
def test_an_unknown_media_ends_with_exit_code_4(shell: Shell, command: str) -> None:
    result = shell.run("outbox", command, UNKNOWN, exit_code=4)
    assert UNKNOWN in result.stderr
    assert UNKNOWN not in result.stdout


@pytest.mark.parametrize("arguments", [("show",), ("skip",), ("retry",)])
def test_bytes_that_are_no_text_are_an_unknown_media(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert "\\udcff" in shell.run("outbox", *arguments, "\udcff", exit_code=4).stderr


@pytest.mark.parametrize("media_id", ["\udcff", "photo.jpg"])
def test_a_flush_of_what_is_no_media_id_says_so(shell: Shell, media_id: str) -> None:
    shell.upload(1)
    assert repr(media_id) in shell.run("outbox", "flush", "--media", media_id, exit_code=4).stderr


def test_a_media_that_is_not_parked_is_neither_skipped_nor_retried(shell: Shell) -> None:
    media_id = shell.upload(1)
    shell.run("outbox", "skip", media_id, exit_code=4)
    shell.run("outbox", "retry", media_id, exit_code=4)
    assert shell.json("outbox", "status")["pending"] == 1


def test_a_parked_media_is_retried(shell: Shell, annotations: ReferenceService) -> None:
    media_id = parked(shell, annotations, 1)
    assert shell.json("outbox", "retry", media_id) == {"retried": [media_id]}
    assert shell.json("outbox", "status")["parked"] == 0
    shell.run("outbox", "flush")
    assert applied(annotations) == [media_id]


def test_all_parked_media_are_retried_at_once(shell: Shell, annotations: ReferenceService) -> None:
    both = sorted([parked(shell, annotations, 1), parked(shell, annotations, 2)])
    assert sorted(shell.json("outbox", "retry", "--all")["retried"]) == both
    assert shell.json("outbox", "retry", "--all") == {"retried": []}


def test_those_known_are_retried_though_another_is_not(shell: Shell, annotations: ReferenceService) -> None:
    media_id = parked(shell, annotations, 1)
    assert shell.json("outbox", "retry", media_id, UNKNOWN, exit_code=4) == {"retried": [media_id]}


@pytest.mark.parametrize("arguments", [(), (UNKNOWN, "--all")])
def test_retry_wants_either_names_or_all(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.run("outbox", "retry", *arguments, exit_code=2)


def test_a_skipped_message_is_dropped_and_recorded_so(shell: Shell, annotations: ReferenceService) -> None:
    media_id = parked(shell, annotations, 1)
    assert shell.json("outbox", "skip", media_id) == {"mediaId": media_id, "skipped": 1}
    [message] = shell.json("outbox", "show", media_id)["messages"]
    assert message["outcome"] == "skipped"
    assert shell.json("outbox", "flush")["total"] == 0
    assert applied(annotations) == []


def test_delivered_messages_are_pruned_once_they_are_old(shell: Shell, annotations: ReferenceService) -> None:
    shell.upload(1)
    shell.run("outbox", "flush")
    assert shell.json("outbox", "prune") == {"pruned": 0}
    impatient = Shell(shell.settings | {"OUTBOX_RETENTION_DAYS": "0.0000001"})
    try:
        waiting = impatient.upload(2)
        assert impatient.json("outbox", "prune") == {"pruned": 1}
        assert [row["mediaId"] for row in impatient.json("outbox", "list")] == [waiting]
        impatient.run("outbox", "verify")
    finally:
        impatient.api.close()


def test_verify_finds_nothing_where_nothing_is_wrong(shell: Shell, annotations: ReferenceService) -> None:
    shell.upload(1)
    parked(shell, annotations, 2)
    assert shell.json("outbox", "verify")["broken"] == []
    assert "holds" in shell.run("outbox", "verify").stderr


def test_verify_finds_a_message_that_is_missing(shell: Shell) -> None:
    media_id = shell.upload(1)
    database = shell.settings["DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(database) as other:
        other.execute("DELETE FROM outbox_message")
    other.close()
    result = shell.run("outbox", "verify", "--json", exit_code=5)
    broken: list[dict[str, Any]] = json.loads(result.stdout)["broken"]
    assert broken
    assert {row["mediaId"] for row in broken} == {media_id}
    assert media_id in shell.run("outbox", "verify", exit_code=5).stdout


def test_a_dispatcher_of_its_own_delivers_until_it_is_told_to_end(shell: Shell, annotations: ReferenceService) -> None:
    with flask(shell, "outbox", "run") as dispatcher:
        try:
            assert dispatcher.stderr is not None
            assert "Delivering messages" in dispatcher.stderr.readline()
            media_id = shell.upload(1)  # from another process, which wakes this one through the database
            annotations.wait_for(lambda entries: any(entry["applied"] for entry in entries), seconds=10)
            dispatcher.send_signal(signal.SIGTERM)
            assert dispatcher.wait(30) == 0
        finally:
            dispatcher.kill()
    assert applied(annotations) == [media_id]
    assert shell.json("outbox", "show", media_id)["sendingBy"] is None
    assert shell.json("outbox", "status")["pending"] == 0


def test_a_dispatcher_without_an_address_does_not_start(lonely_shell: Shell) -> None:
    assert "ANNOTATIONS_URL" in lonely_shell.run("outbox", "run", exit_code=1).stderr
