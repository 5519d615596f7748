"""The pages point at what is there: each link leads to a file, and that to the name that docs/architecture.md shows."""

import re
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)?(?:#[^)]*)?\)")
ARCHITECTURE = ROOT / "docs" / "architecture.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = [target for _text, target in LINK.findall(page.read_text()) if target and "://" not in target]
    assert [target for target in links if not (page.parent / target).exists()] == []


def test_every_function_that_the_architecture_names_is_in_the_file_it_links_to() -> None:
    named = [
        (text.strip("`").rpartition(".")[2], ARCHITECTURE.parent / target)
        for text, target in LINK.findall(ARCHITECTURE.read_text())
        if target and target.endswith(".py") and text.startswith("`") and "/" not in text and not text.endswith(".py`")
    ]
    assert len(named) > 10
    missing = [name for name, file in named if not re.search(rf"\b(def|class) {name}\b", file.read_text())]
    assert missing == []


def test_every_test_file_that_the_architecture_names_is_there() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)`", ARCHITECTURE.read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
