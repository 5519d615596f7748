"""Row 10's other half: the annotations service's clock is a day off, and nothing is lost or put off for it."""

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.long import later
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, assert_kept, photo
from tests.system.service import SECRET, Service

DAY = 86_400.0
STATIC_TOKEN = "a-token-without-times"
UPLOADS = 3
SOON = 60.0
"""Far more than the two seconds that are asked for, and far less than the hour that any wait is clamped to."""


@pytest.fixture(params=later([DAY], -DAY), ids=["ahead", "behind"])
def wrong_clock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReferenceService]:
    """An annotations service that dates its answers, and judges tokens, by a clock a day off."""
    database = tmp_path / "annotations.db"
    with ReferenceService(database, SECRET, static_token=STATIC_TOKEN, clock_offset=request.param) as annotations:
        yield annotations


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, None)
    try:
        yield service
    finally:
        service.stop()
        service.kill()


@pytest.mark.long
def test_a_date_to_come_back_at_is_measured_by_the_clock_that_gave_it(
    wrong_clock: ReferenceService, service: Service
) -> None:
    service.environment |= {"ANNOTATIONS_URL": wrong_clock.url, "ANNOTATIONS_TOKEN": STATIC_TOKEN}
    service.start()
    come_back = {"Retry-After": formatdate(wrong_clock.clock() + 2, usegmt=True)}
    wrong_clock.control(fail={"status": 503, "headers": come_back, "times": 2})
    began = time.monotonic()
    uploads = _upload(service, "/detect")
    wrong_clock.wait_for(lambda log: sum(entry["applied"] for entry in log) == 3 * UPLOADS, seconds=SOON)
    assert time.monotonic() - began < SOON
    assert [entry["status"] for entry in wrong_clock.log()].count(503) == 2
    assert _status(service)["parked"] == 0
    assert_kept(service, wrong_clock, [uploads])


def test_a_clock_by_which_no_token_is_valid_parks_nothing_and_all_arrives_once_it_is_right(
    wrong_clock: ReferenceService, service: Service
) -> None:
    service.environment |= {"ANNOTATIONS_URL": wrong_clock.url}
    service.start()
    uploads = _upload(service, "/media")
    wrong_clock.wait_for(lambda log: [entry["status"] for entry in log].count(401) >= 2, seconds=SOON)
    status = _status(service)
    assert status["parked"] == 0
    assert status["pending"] == UPLOADS
    assert status["circuit"]["state"] == "closed"
    assert "401" in status["held"][0]["reason"]
    wrong_clock.clock_offset = 0.0
    wrong_clock.wait_for(lambda log: sum(entry["applied"] for entry in log) == UPLOADS, seconds=2 * SOON)
    assert _status(service)["parked"] == 0
    assert_kept(service, wrong_clock, [uploads])


def _upload(service: Service, path: str) -> Uploads:
    uploads = Uploads()
    for number in range(UPLOADS):
        uploads.send(service, path, photo(number))
    assert len(uploads.promised) == UPLOADS, uploads.refused
    return uploads


def _status(service: Service) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(service.flask("outbox", "status", "--json").stdout)
    return status
