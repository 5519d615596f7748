"""What pages and campaigns tell people to run is there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.campaigns import CAMPAIGNS, Step
from tests.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
STEPS = [pytest.param(step, id=f"{name} {number}") for name in CAMPAIGNS for number, step in enumerate(CAMPAIGNS[name])]


def is_there(module: str) -> bool:
    return find_spec(module) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_script_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = set(re.findall(r"python3? -m ((?:app|benchmarks|tests)[\w.]*\w)", text))
    assert {module for module in modules if not is_there(module)} == set()
    scripts = set(re.findall(r"`((?:bin|\.ci)/\w+)", text))
    assert {script for script in scripts if not (ROOT / script).is_file()} == set()
    tests = set(re.findall(r"pytest (?:-\S+ )*(tests/[\w/.]+)", text))
    assert {path for path in tests if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("step", STEPS)
def test_every_step_of_a_campaign_names_what_exists(step: Step) -> None:
    module, *arguments = step.arguments.split()
    assert is_there(module)
    assert [word for word in arguments if word.startswith("tests/") and not (ROOT / word).exists()] == []
