"""Reliability row 37: the annotations service loses the last third of its records while uploads go on.

The full figure: RESEND_ITEMS=1000 python -m pytest tests/system/test_other_side_restored.py --timeout=0
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.long import postgres_first
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, photo
from tests.system.service import Service

ITEMS = int(os.environ.get("RESEND_ITEMS", "12"))
DETECTED = 6
"""Every so many items have a run, and so three messages."""
SECONDS = 60 + ITEMS / 5


@pytest.fixture
def service(tmp_path: Path, database_url: str, annotations: ReferenceService) -> Iterator[Service]:
    service = Service(tmp_path, database_url, annotations.url)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def upload(service: Service, uploads: Uploads, number: int) -> None:
    uploads.send(service, "/detect" if number % DETECTED == 0 else "/media", photo(number))


def drained(service: Service) -> None:
    eventually(
        lambda: not any(item["delivery"]["pending"] for item in recorded(service)),
        "the outbox to drain",
        seconds=SECONDS,
    )


def recorded(service: Service) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    page: dict[str, Any] = {"nextCursor": None}
    while not items or page["nextCursor"]:
        options = {"limit": "500"} | ({"cursor": page["nextCursor"]} if page["nextCursor"] else {})
        page = service.request("GET", "/media", params=options).json()
        items += page["items"]
    return items


@postgres_first
@pytest.mark.timeout(300)
def test_everything_that_was_lost_is_said_again_and_nothing_else(
    service: Service, annotations: ReferenceService
) -> None:
    uploads = Uploads()
    for number in range(ITEMS):
        upload(service, uploads, number)
    assert len(uploads.promised) == ITEMS, uploads.refused
    drained(service)
    lost = [record["id"] for record in annotations.records()][-(ITEMS // 3) :]
    over = threading.Event()

    def go_on() -> None:
        for number in count(ITEMS):
            if over.is_set():
                return
            upload(service, uploads, number)

    client = threading.Thread(target=go_on)
    client.start()
    try:
        annotations.forget(lost)
        before = len(annotations.log())
        told: Any = service.flask("outbox", "resend", "--missing", "--json", timeout=SECONDS)
        assert told.returncode == 0, told.stderr
        time.sleep(0.5)
    finally:
        over.set()
        client.join()
    report = json.loads(told.stdout)
    assert {row["mediaId"] for row in report["resent"]} == set(lost)
    assert report["left"] == []
    drained(service)
    known_before = set(list(uploads.promised)[:ITEMS]) - set(lost)
    told_again = {entry["mediaId"] for entry in annotations.log(before) if entry["method"] != "GET"}
    assert not told_again & known_before, "something was sent for items that were not missing"
    there = {record["id"]: record["mediaStatus"] for record in annotations.records()}
    assert there == {item["id"]: item["mediaStatus"] for item in recorded(service)}
    assert check_log(annotations.log(), forgotten=lost) == []
    assert service.flask("outbox", "verify", "--remote", timeout=SECONDS).returncode == 0
