"""The quick forms of rows 12, 29, 36, 38 and 40 of docs/reliability.md; the full ones are tests/outbox/campaign.py.

What an answer means is the same on either database, so the parts take turns with them; the command with `--small` has
each part on both.

A part mostly waits, so several run at once, each with its own outbox and annotations service.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from app.database import Database
from tests.conftest import lent_database
from tests.outbox.campaign import SMALL, Result, parts

pytestmark = pytest.mark.slow

AT_ONCE = 4
MARKS = {
    "12 every answer": [pytest.mark.long],
    "36 total outage": [pytest.mark.long, pytest.mark.alone],  # it counts within seconds
    "36 all at once": [pytest.mark.long],
}
KINDS = ("sqlite", "postgres")
CASES = [pytest.param(name, KINDS[number % 2], marks=MARKS.get(name, [])) for number, name in enumerate(parts())]

Results = dict[tuple[str, str], "Future[Result]"]


def run(part: str, url: str) -> Result:
    with closing(Database(url)) as database:
        return parts()[part](database, SMALL)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """The results of the parts, on each kind of database."""
    folder = tmp_path_factory.mktemp("campaign")
    items: list[Any] = [item for item in request.session.items if item.path == request.path]
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        results: Results = {}
        for number, params in enumerate(item.callspec.params for item in items):
            (folder / str(number)).mkdir()
            url = stack.enter_context(lent_database(request, params["kind"], folder / str(number)))
            results[params["part"], params["kind"]] = pool.submit(run, params["part"], url)
        yield results


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("part", "kind"), CASES)
def test_what_an_answer_means_holds_over_real_http(results: Results, part: str, kind: str) -> None:
    assert results[part, kind].result().problems == []
