"""docs/reliability.md's tables of what one request may take: every endpoint is there, and every test that is named."""

import ast
import re
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from app.settings import Settings
from tests.api.conftest import settings_in
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## What one request may take\n")[2].partition("\n## ")[0]
ANSWERED_BY_FLASK = {"HEAD", "OPTIONS"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the section's table that begins with that heading."""
    lines = SECTION.partition(f"| {heading} |")[2].splitlines()[2:]
    table = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


CALLS, LIMITS, OPENED = rows("call"), rows("limit"), rows("what")


@pytest.fixture
def application(tmp_path: Path, sqlite_template: Path) -> Iterator[Flask]:
    application = create_app(Settings.from_env(settings_in(tmp_path, sqlite_template, None, {"DETECTION": "off"})))
    with closing(application.extensions["detections"]):
        yield application


def test_every_endpoint_has_its_row(application: Flask) -> None:
    served = {
        f"`{method} {rule.rule}`"
        for rule in application.url_map.iter_rules()
        for method in (rule.methods or set()) - ANSWERED_BY_FLASK
    }
    written = [row[0] for row in CALLS if row[0].startswith("`")]
    assert sorted(written) == sorted(served)
    assert all(len(row) == 5 and all(row) for row in CALLS)


def test_every_limit_that_a_row_names_is_listed_and_every_listed_one_is_named() -> None:
    listed = [row[0].strip("*") for row in LIMITS]
    named = {name for row in CALLS for cell in row for name in re.findall(r"\*([^*]+)\*", cell)}
    named |= {name for row in LIMITS for name in re.findall(r"\*([^*]+)\*", row[1])}
    assert sorted(set(listed)) == sorted(listed)
    assert named == set(listed)


@pytest.mark.parametrize("row", [*LIMITS, *OPENED], ids=lambda row: row[0].strip("*"))
def test_every_limit_is_shown_by_tests_that_exist(row: list[str]) -> None:
    shown = re.findall(r"`(tests/[^`]+)`", row[-1])
    assert shown
    for name in shown:
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), name
        assert function in functions_of(path), name


def test_every_test_file_that_the_page_names_exists() -> None:
    for path in re.findall(r"`(tests/[A-Za-z0-9_/]+\.py)", PAGE):
        assert (ROOT / path).is_file(), path


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
