"""The quick forms of rows 12, 29, 36, 38 and 40 of docs/reliability.md; the full figures are the command's.

A part mostly waits, so several are under way at once, each with an outbox and an annotations service of its own.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.db import Database
from tests.conftest import database_address
from tests.outbox.campaign import SMALL, Result, parts
from tests.postgres_databases import Databases

pytestmark = pytest.mark.slow

AT_ONCE = 4
COUNTS_WITHIN_SECONDS = "36 total outage"
KINDS = ("sqlite", "postgres")
MARKED = [pytest.param(name, marks=[pytest.mark.alone] if name == COUNTS_WITHIN_SECONDS else []) for name in parts()]

Results = dict[tuple[str, str], "Future[Result]"]


def run(part: str, url: str) -> Result:
    with closing(Database(url)) as database:
        return parts()[part](database, SMALL)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """What each part that was asked for comes to, on each kind of database."""
    template: Path = request.getfixturevalue("sqlite_template")
    server: str = request.getfixturevalue("postgres_server")
    databases: Databases = request.getfixturevalue("postgres_databases")
    folder = tmp_path_factory.mktemp("campaign")
    items: list[Any] = [item for item in request.session.items if item.path == request.path]
    lent: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results: Results = {}
        for number, params in enumerate(item.callspec.params for item in items):
            if params["kind"] == "postgres":
                lent.append(databases.take())
                url = database_address(server, lent[-1])
            else:
                url = f"sqlite:///{shutil.copy(template, folder / f'{number}.db')}"
            results[params["part"], params["kind"]] = pool.submit(run, params["part"], url)
        yield results
    for name in lent:
        databases.give_back(name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", MARKED)
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_answer_means_holds_over_real_http(results: Results, part: str, kind: str) -> None:
    assert results[part, kind].result().problems == []
