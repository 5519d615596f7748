"""A start before its database is up."""

import socket
import sys
from contextlib import closing, suppress

import pytest

from app.database import Database
from app.wait_for_database import REPORT_SECONDS, RETRY_SECONDS, wait
from tests import fork_server
from tests.long import postgres_first
from tests.paths import ROOT


def test_an_unreachable_database_is_reported_at_once_and_once_a_minute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    clock, said = [0.0], list[tuple[float, str]]()

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        clock[0] += seconds * 10  # the refusals are real, and take their time
        if clock[0] > 2.5 * REPORT_SECONDS:
            raise Enough

    url = f"postgresql+psycopg://ada:hunter22@127.0.0.1:{port}/none"
    with closing(Database(url)) as database, suppress(Enough):
        wait(database, lambda text: said.append((clock[0], text)), sleep=sleep, monotonic=lambda: clock[0])
    assert [at for at, _text in said] == [0.0, REPORT_SECONDS, 2 * REPORT_SECONDS]
    assert all("refused" in text and "hunter22" not in text and text.isprintable() for _at, text in said)
    assert RETRY_SECONDS < REPORT_SECONDS


@pytest.mark.long
@postgres_first
def test_a_database_that_is_there_is_not_waited_for(database_url: str) -> None:
    done = fork_server.run(
        [sys.executable, "-m", "app.wait_for_database"],
        cwd=ROOT,
        env={"DATABASE_URL": database_url},
        timeout=30,
    )
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == ""
