"""Reliability row 46: a standby that lacks the last moments is promoted, while the service's processes stay.

FAILOVER_LOST_SECONDS (default 0.4) is how much of its history the database loses.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import migrate
from tests.eventually import eventually
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.servers.standby import Server, primary_and_standby, url
from tests.system.promise import Uploads, photo
from tests.system.service import SECRET, Service

LOST_SECONDS = float(os.environ.get("FAILOVER_LOST_SECONDS", "0.4"))
SECONDS = 60
COMMANDS = ("flask outbox verify --remote", "flask outbox resend --missing", "flask media verify")


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with primary_and_standby(synchronous=False) as both:
        yield both


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture
def service(servers: tuple[Server, Server], annotations: ReferenceService, tmp_path: Path) -> Iterator[Service]:
    address = url(servers)
    migrate(address)
    service = Service(tmp_path, address, annotations.url, DETECTION="off")
    try:
        yield service.start("--workers", "2")
    finally:
        service.stop()
        service.kill()


class Clients:
    """Photos, one after the other, until told to stop; what was refused is sent again with the next."""

    def __init__(self, service: Service) -> None:
        self.uploads = Uploads()
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(0.02):
            self.uploads.send(self._service, "/media", photo(number))
            number += 1


@pytest.mark.long
def test_a_lost_tail_is_noticed_as_the_processes_connect_again_and_no_number_is_used_twice(
    servers: tuple[Server, Server], annotations: ReferenceService, service: Service
) -> None:
    primary, standby = servers
    clients = Clients(service)
    clients.start()
    eventually(lambda: len(clients.uploads.promised) >= 10)
    receiver = standby.stop_following()
    acknowledged = len(annotations.log())
    time.sleep(LOST_SECONDS)
    eventually(lambda: len(annotations.log()) > acknowledged + 3)  # which the database forgets
    primary.crash()
    standby.forget(receiver)
    standby.promote()
    known = len(clients.uploads.promised)
    eventually(lambda: len(clients.uploads.promised) >= known + 10)
    clients.stop()
    assert set(clients.uploads.refused) <= {503}
    said = [line for line in service.log.read_text().splitlines() if "database_failed_over" in line]
    assert len(said) == 1
    assert all(command in said[0] for command in COMMANDS)
    assert service.outbox()["epoch"] == 2
    assert service.outbox()["restoredAt"] is not None
    lost = clients.uploads.promised.keys() - statuses(service)
    assert lost
    for media_id in lost:  # as clients do that look whether theirs arrived
        assert service.upload("/media", clients.uploads.promised[media_id], name="photo.png").ok
    resent = service.flask("outbox", "resend", "--missing", timeout=SECONDS)
    assert resent.returncode == 0, resent.stderr
    eventually(lambda: not service.outbox()["pending"])
    assert {record["id"]: record["mediaStatus"] for record in annotations.records()} == statuses(service)
    assert check_log(annotations.log()) == []
    assert service.flask("outbox", "verify", "--remote").returncode == 0


def statuses(service: Service) -> dict[str, int]:
    items = service.request("GET", "/media", params={"limit": "500"}).json()["items"]
    return {item["id"]: item["mediaStatus"] for item in items}
