"""What all commands have in common: help, errors in one line, tables that fit the terminal."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app.cli import COMMANDS
from tests.cli.conftest import Shell
from tests.cli.terminal import on_terminal, piped
from tests.system.service import SECRET

pytestmark = pytest.mark.slow


def every_command(commands: tuple[click.Command, ...], *names: str) -> Iterator[tuple[str, ...]]:
    for command in commands:
        path = (*names, command.name or "")
        if isinstance(command, click.Group):
            yield from every_command(tuple(command.commands.values()), *path)
        else:
            yield path


@pytest.mark.parametrize("names", list(every_command(COMMANDS)), ids=" ".join)
def test_the_help_of_every_command_has_an_example_and_its_exit_codes(names: tuple[str, ...]) -> None:
    flask = click.Group(commands=list(COMMANDS))
    help_text = CliRunner().invoke(flask, [*names, "--help"], prog_name="flask").stdout
    _, _, examples = help_text.partition("Examples:\n")
    assert f"flask {' '.join(names)}" in examples
    _, _, codes = examples.partition("Exit codes:\n")
    assert "    0  " in codes
    assert "    1  " in codes
    assert [line for line in help_text.splitlines() if len(line) > 80] == []


def test_without_settings_the_commands_are_there_and_those_that_need_none_work(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    listed = piped("--help")
    assert listed.returncode == 0
    assert "outbox" in listed.stdout
    assert piped("outbox", "flush", "--help").returncode == 0
    assert piped("media", "hash", str(tmp_path / "a.jpg")).returncode == 0


def test_without_settings_a_command_that_needs_them_says_what_is_missing_in_one_line() -> None:
    ended = piped("outbox", "status")
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert "JWT_SECRET_KEY" in line


def settings(folder: Path, database_url: str) -> dict[str, str]:
    return {
        "JWT_SECRET_KEY": SECRET,
        "DATABASE_URL": database_url,
        "IMAGES_DIR": str(folder / "images"),
        "VIDEOS_DIR": str(folder / "videos"),
    }


def one_line_of(folder: Path, database_url: str, *command: str) -> str:
    ended = piped(*(command or ("outbox", "status")), environment=settings(folder, database_url))
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    return line


def test_a_database_that_was_never_migrated_is_told_with_the_remedy(tmp_path: Path) -> None:
    line = one_line_of(tmp_path, f"sqlite:///{tmp_path / 'new.db'}")
    assert "new.db" in line
    assert "alembic upgrade head" in line


def test_a_database_of_an_older_version_is_told_with_the_remedy(tmp_path: Path, sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as other:
        other.execute("ALTER TABLE outbox_stream RENAME COLUMN waiting_since TO something_else")
    other.close()
    assert "alembic upgrade head" in one_line_of(tmp_path, sqlite_url)


def test_a_file_that_is_no_database_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough to be none" * 100)
    line = one_line_of(tmp_path, f"sqlite:///{tmp_path / 'text.db'}")
    assert "text.db" in line
    assert "not a database" in line


def test_a_database_server_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    line = one_line_of(tmp_path, "postgresql+psycopg://ada:hidden-word@127.0.0.1:1/detections")
    assert "refused" in line
    assert "hidden-word" not in line


def test_folders_that_cannot_be_made_are_told_in_one_line(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    assert "images" in one_line_of(tmp_path, sqlite_url, "media", "recover")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_the_terminal_and_breaks_no_word(shell: Shell, columns: int) -> None:
    ids = [shell.upload(number) for number in range(3)]
    code, told = on_terminal("outbox", "list", columns=columns, environment=shell.settings)
    lines = [without_styles(line) for line in told.splitlines()]
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert {media_id for media_id in ids if any(media_id in line for line in lines)} == set(ids)
    assert sum(re.search(r"\bcreate\b", line) is not None for line in lines) == len(ids)


def test_what_a_table_has_no_room_for_is_said_to_be_left_out(shell: Shell) -> None:
    shell.upload(1)
    _, narrow = on_terminal("outbox", "list", columns=80, environment=shell.settings)
    _, wide = on_terminal("outbox", "list", columns=200, environment=shell.settings)
    [left_out] = re.findall(r"Omitted for width: (.*); --json prints all columns\.", narrow)
    assert "createdAt" in left_out.split(", ")
    assert "createdAt" in wide
    assert "Omitted for width" not in wide


def test_where_a_table_is_piped_each_row_is_one_line(shell: Shell) -> None:
    for number in range(3):
        shell.upload(number)
    assert len(piped("outbox", "list", environment=shell.settings).stdout.splitlines()) == 4


def without_styles(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)
