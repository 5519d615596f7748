"""`flask media list` and `flask media show`: the API's records, as tables and as JSON."""

import json
import sqlite3
from contextlib import closing

import pytest

from app.cli.media.records import PAGE
from app.runs.lifecycle import RunRequest
from tests.cli.conftest import Shell
from tests.reference.service import ReferenceService

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5)
UNKNOWN = "0123456789abcdef"
MANY_ROWS = """
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
    INSERT INTO media (id, name, path, media_type, media_status, user_id, size_bytes, created_at)
    SELECT printf('%016x', n), 'many.jpg', printf('%016x.jpg', n), 'Image', 1, 'ada', 1, 1e10 + n FROM number
"""


def listed(shell: Shell, *options: str) -> list[str]:
    return [record["id"] for record in shell.json("media", "list", *options)]


def test_media_are_listed_newest_first_with_the_records_of_the_api(lonely_shell: Shell) -> None:
    ids = [lonely_shell.upload(number) for number in range(3)]
    told = lonely_shell.json("media", "list")
    assert [record["id"] for record in told] == ids[::-1]
    assert told == lonely_shell.api.get("/media").json["items"]  # type: ignore[index]


def test_an_empty_list_is_a_list(lonely_shell: Shell) -> None:
    assert lonely_shell.json("media", "list") == []
    assert "Error" not in lonely_shell.run("media", "list").stderr


def test_a_list_can_be_longer_than_a_page(lonely_shell: Shell) -> None:
    older = [lonely_shell.upload(number) for number in range(2)]
    with closing(sqlite3.connect(lonely_shell.settings["DATABASE_URL"].removeprefix("sqlite:///"))) as other, other:
        other.execute(MANY_ROWS, (PAGE,))
    assert listed(lonely_shell, "--limit", "1000")[PAGE:] == older[::-1]
    assert listed(lonely_shell, "--limit", str(PAGE + 1))[PAGE:] == older[:0:-1]


def test_a_list_that_was_cut_says_so_where_people_read_it(lonely_shell: Shell) -> None:
    for number in range(3):
        lonely_shell.upload(number)
    assert "more than 2" in lonely_shell.run("media", "list", "--limit", "2").stderr
    assert lonely_shell.run("media", "list", "--limit", "3").stderr.count("more than") == 0


def test_a_list_is_of_one_status_or_type_where_asked(lonely_shell: Shell) -> None:
    processing, new = lonely_shell.upload(1), lonely_shell.upload(2)
    runs = lonely_shell.api.services.runs
    runs.start_new(processing, WANTED)
    assert runs.claim("somebody")
    assert listed(lonely_shell, "--status", "processing") == [processing]
    assert listed(lonely_shell, "--status", "new") == [new]
    assert listed(lonely_shell, "--status", "error") == []
    assert sorted(listed(lonely_shell, "--type", "image")) == sorted([processing, new])
    assert listed(lonely_shell, "--type", "video") == []
    assert "processing" in lonely_shell.run("media", "list", "--status", "processing").stdout


def test_an_unknown_status_is_wrong_usage(lonely_shell: Shell) -> None:
    assert "processed" in lonely_shell.run("media", "list", "--status", "done", exit_code=2).stderr


def test_a_media_is_shown_as_the_api_shows_it(shell: Shell, annotations: ReferenceService) -> None:
    media_id = shell.upload(1)
    annotations.control(fail={"status": 422, "body": "no, thank you"})
    shell.run("outbox", "flush", exit_code=1)
    assert shell.json("media", "show", media_id) == shell.api.get(f"/media/{media_id}").json
    table = shell.run("media", "show", media_id).stdout
    assert f"{media_id}.jpg" in table  # where its file is
    assert "422" in table


def test_a_name_is_shown_as_it_is_and_never_as_markup(lonely_shell: Shell) -> None:
    from_client = "[bold red]:smile: a\u0301.jpg"
    lonely_shell.api.upload("/media", b"\xff\xd8\xff" + b"0" * 100, from_client)
    assert "[bold red]:smile: \u00e1.jpg" in lonely_shell.run("media", "list").stdout


@pytest.mark.parametrize("media_id", [UNKNOWN, "no id at all", "\x00"])
def test_an_unknown_media_ends_with_exit_code_4(lonely_shell: Shell, media_id: str) -> None:
    result = lonely_shell.run("media", "show", media_id, "--json", exit_code=4)
    assert result.stdout == ""
    assert json.dumps(media_id)[1:-1] in result.stderr or repr(media_id) in result.stderr
