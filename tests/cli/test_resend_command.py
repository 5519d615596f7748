"""`flask outbox resend` and `verify --remote`: output, exit codes, one line for each failure."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.reference.service import ReferenceService

UNKNOWN = "0123456789abcdef"


def delivered(shell: Shell, *numbers: int) -> list[str]:
    """Return new media items whose messages are all delivered."""
    media_ids = [shell.upload(number) for number in numbers]
    shell.run("outbox", "flush")
    return media_ids


def known(annotations: ReferenceService) -> set[str]:
    return {record["id"] for record in annotations.records()}


def test_verify_ends_with_the_command_that_says_again_what_is_missing(
    shell: Shell, annotations: ReferenceService
) -> None:
    lost, _kept = delivered(shell, 1, 2)
    shell.run("outbox", "verify", "--remote")
    annotations.forget([lost])
    result = shell.run("outbox", "verify", "--remote", exit_code=5)
    assert "GET says that it is not there" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("flask outbox resend --missing")


def test_what_is_missing_is_said_again_and_arrives(shell: Shell, annotations: ReferenceService) -> None:
    lost, kept = delivered(shell, 1, 2)
    annotations.forget([lost])
    wanted: dict[str, Any] = {"mediaId": lost, "problem": "GET says that it is not there", "messages": 0}
    told = {"asked": 2, "dryRun": True, "resent": [wanted], "left": []}
    assert shell.json("outbox", "resend", "--missing", "--dry-run") == told
    assert known(annotations) == {kept}
    said = shell.json("outbox", "resend", "--missing")
    assert said == told | {"dryRun": False, "resent": [wanted | {"messages": 1}]}
    shell.run("outbox", "flush")
    assert known(annotations) == {lost, kept}
    table = shell.run("outbox", "resend", "--missing")
    assert table.stdout == ""
    assert table.stderr == "2 compared, 0 will be sent again.\n"


def test_those_named_are_said_again_and_unknown_ones_are_told(shell: Shell, annotations: ReferenceService) -> None:
    [lost] = delivered(shell, 1)
    annotations.forget([lost])
    result = shell.run("outbox", "resend", lost, UNKNOWN, "\udcff", "--json", exit_code=4)
    assert [row["mediaId"] for row in json.loads(result.stdout)["resent"]] == [lost]
    assert UNKNOWN in result.stderr


def test_what_was_delivered_since_a_moment_is_said_again(shell: Shell, annotations: ReferenceService) -> None:
    [lost] = delivered(shell, 1)
    annotations.forget([lost])
    assert shell.json("outbox", "resend", "--since", "2999-01-01T00:00:00Z")["resent"] == []
    assert len(shell.json("outbox", "resend", "--since", "2020-01-01T00:00:00+01:00")["resent"]) == 1


@pytest.mark.parametrize("status", [401, 403, 405, 501])
def test_where_records_cannot_be_read_nothing_is_claimed_and_nothing_is_sent(
    shell: Shell, annotations: ReferenceService, status: int
) -> None:
    delivered(shell, 1, 2)
    annotations.control(fail={"status": status, "match": {"method": "GET"}, "times": 100})
    for command in (("verify", "--remote"), ("resend", "--missing")):
        result = shell.run("outbox", *command, exit_code=1)
        assert result.stdout == ""
        [line] = result.stderr.strip().splitlines()
        assert f"answered {status}" in line
    shell.run("outbox", "flush")
    assert len([entry for entry in annotations.log() if entry["method"] != "GET"]) == 2


def test_a_page_for_people_is_no_answer(shell: Shell, annotations: ReferenceService) -> None:
    delivered(shell, 1)
    page = {"status": 404, "body": "<html>Not found</html>", "headers": {"Content-Type": "text/html"}}
    annotations.control(fail=page | {"match": {"method": "GET"}})
    assert "404 with HTML" in shell.run("outbox", "verify", "--remote", exit_code=1).stderr


def test_an_other_side_that_is_away_could_not_be_asked(shell: Shell, annotations: ReferenceService) -> None:
    [media_id] = delivered(shell, 1)
    annotations.stop()
    for arguments in (("--missing",), (media_id,), ("--since", "2020-01-01T00:00:00Z")):
        assert "could not be queried" in shell.run("outbox", "resend", *arguments, exit_code=1).stderr
    annotations.start()


def test_where_not_one_is_found_the_person_decides(shell: Shell, annotations: ReferenceService) -> None:
    annotations.forget(delivered(shell, 1, 2))
    assert "--since" in shell.run("outbox", "resend", "--missing", exit_code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (UNKNOWN, "--missing"),
        ("--missing", "--since", "2026-11-27T03:00:00Z"),
        ("--since", "yesterday"),
        ("--since", "2026-11-27T03:00:00"),
    ],
)
def test_resend_wants_one_choice_and_a_time_with_its_offset(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.run("outbox", "resend", *arguments, exit_code=2)


def test_there_is_nobody_to_say_anything_to_without_an_address(lonely_shell: Shell) -> None:
    assert "ANNOTATIONS_URL" in lonely_shell.run("outbox", "resend", "--missing", exit_code=1).stderr


def test_a_restored_database_is_told_of_with_its_commands(shell: Shell, annotations: ReferenceService) -> None:
    delivered(shell, 1)
    services = shell.api.services
    for folder in services.folders.paths:
        (folder / ".detections" / "marker.json").unlink()
    shell.run("media", "accept-folders")
    status = shell.run("outbox", "status")
    assert "flask outbox resend --missing" in status.stderr
    document = shell.json("outbox", "status")
    assert document["epoch"] == 2
    assert document["restoredAt"] is not None
    shell.run("outbox", "resend", "--missing")
    assert shell.json("outbox", "status")["restoredAt"] is None
