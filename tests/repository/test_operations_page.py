"""docs/operations.md's tables of settings and commands name every one that the code has, and no other."""

import re
from collections.abc import Iterator, Mapping

import click
import pytest

from app.cli import COMMANDS
from app.settings import Settings
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
SAID_ONCE_FOR_ALL = {"--json", "--help"}
CODES_OF_EVERY_COMMAND = {"0", "1", "2"}


class Watched(Mapping[str, str]):
    """An environment that knows which of its variables were asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def rows(section: str) -> list[list[str]]:
    """The cells of each row of the table in a section, without its head."""
    [content] = re.findall(rf"^## {section}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in content.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from leaves(inner, f"{name} {part}")
    else:
        yield name, command


ALL_COMMANDS = dict(pair for command in COMMANDS for pair in leaves(command, f"flask {command.name}"))
TOLD_COMMANDS = {re.split(r" (?=[^a-z])", row[0].strip("`"))[0]: row for row in rows("Commands")}


def test_every_setting_that_is_read_is_told_of_and_no_other() -> None:
    environ = Watched({"JWT_SECRET_KEY": "a secret of the tests that is long enough"})
    Settings.from_env(environ)
    told = [name for row in rows("Settings") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(environ.asked)


def test_every_command_is_told_of_and_no_other() -> None:
    assert sorted(TOLD_COMMANDS) == sorted(ALL_COMMANDS)


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_command_is_told_of_with_its_options(name: str) -> None:
    options = {
        option
        for parameter in ALL_COMMANDS[name].params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", TOLD_COMMANDS[name][0])) == options - SAID_ONCE_FOR_ALL


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_command_is_told_of_with_its_exit_codes(name: str) -> None:
    codes = set(re.findall(r"^  (\d)  ", ALL_COMMANDS[name].epilog or "", re.MULTILINE))
    assert codes >= CODES_OF_EVERY_COMMAND
    assert set(re.findall(r"\b\d\b", TOLD_COMMANDS[name][2])) - CODES_OF_EVERY_COMMAND == codes - CODES_OF_EVERY_COMMAND
