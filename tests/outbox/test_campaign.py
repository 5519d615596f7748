"""The quick forms of rows 12, 29, 36, 38 and 40 of docs/reliability.md; the full figures are the command's."""

import pytest

from app.db import Database
from tests.outbox.campaign import SMALL, parts

pytestmark = pytest.mark.slow

COUNTS_WITHIN_SECONDS = "36 total outage"
MARKED = [pytest.param(name, marks=[pytest.mark.alone] if name == COUNTS_WITHIN_SECONDS else []) for name in parts()]


@pytest.mark.parametrize("part", MARKED)
def test_what_an_answer_means_holds_over_real_http(database: Database, part: str) -> None:
    assert parts()[part](database, SMALL).problems == []
