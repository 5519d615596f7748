"""docs/deploy/copy_to_postgres.py: PostgreSQL gets everything from SQLite, and the service continues with it."""

import subprocess
import sys

import pytest

from app.runs.lifecycle import RunRequest
from tests import fork_server
from tests.cli.conftest import Shell
from tests.paths import ROOT
from tests.reference.service import ReferenceService

pytestmark = pytest.mark.slow

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5)


def copied(source: str, target: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-m", "docs.deploy.copy_to_postgres", source, target],
        cwd=ROOT,
        timeout=60,
    )


@pytest.mark.long
def test_a_service_goes_on_where_its_old_database_stood(
    shell: Shell, annotations: ReferenceService, postgres_url: str
) -> None:
    delivered = shell.upload(1)
    shell.run("outbox", "flush")
    waiting = shell.upload(2)
    shell.api.services.runs.start_new(waiting, WANTED)
    before = shell.json("media", "list"), shell.json("outbox", "list")
    ended = copied(shell.settings["DATABASE_URL"], postgres_url)
    assert ended.returncode == 0, ended.stderr
    moved = Shell(shell.settings | {"DATABASE_URL": postgres_url})
    try:
        assert (moved.json("media", "list"), moved.json("outbox", "list")) == before
        assert moved.json("outbox", "verify")["broken"] == []
        assert moved.json("media", "recover")["runs"] == 1
        moved.upload(3)
        moved.api.services.runs.start_new(delivered, WANTED)  # which gets the next number
        assert moved.json("outbox", "flush")["pending"] == 0
        assert moved.json("outbox", "verify", "--remote")["differences"] == []
    finally:
        moved.api.close()


@pytest.mark.long
def test_a_database_with_something_in_it_is_left_alone(shell: Shell, postgres_url: str) -> None:
    shell.upload(1)
    assert copied(shell.settings["DATABASE_URL"], postgres_url).returncode == 0
    again = copied(shell.settings["DATABASE_URL"], postgres_url)
    assert again.returncode == 1
    assert again.stderr.strip() == "The target is not empty."
