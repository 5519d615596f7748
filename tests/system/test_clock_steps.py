"""Reliability row 28: the database's clock a day off during an outage with runs under way, and then right again."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import BindParameter, ColumnElement, Double, bindparam, func, select, update

from app.database.models import DetectionRun, OutboxStream, RunState
from app.ingest import Upload
from app.runs.lifecycle import RunRequest
from app.services import Services
from app.settings import Settings
from tests.eventually import eventually
from tests.long import later
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.promise import photo
from tests.system.service import SECRET

DAY = 86_400.0
ITEMS = 4
SOON = 60.0


class SteppingClock:
    """The time of day, off by `offset` seconds."""

    def __init__(self, offset: float) -> None:
        self.offset = offset
        self.sql: BindParameter[float] = bindparam("clock", callable_=lambda: time.time() + self.offset, type_=Double())


@pytest.fixture(params=later([-DAY], DAY), ids=["a day behind, then set forward", "a day ahead, then set back"])
def clock(request: pytest.FixtureRequest) -> SteppingClock:
    return SteppingClock(request.param)


@pytest.fixture
def services(
    tmp_path: Path, database_url: str, annotations: ReferenceService, clock: SteppingClock
) -> Iterator[Services]:
    settings = {
        "JWT_SECRET_KEY": SECRET,
        "DATABASE_URL": database_url,
        "IMAGES_DIR": str(tmp_path / "images"),
        "VIDEOS_DIR": str(tmp_path / "videos"),
        "DETECTION": "off",
        "ANNOTATIONS_URL": annotations.url,
    }
    services = Services(Settings.from_env(settings), now=clock.sql)
    services.start()
    over = threading.Event()
    worker = threading.Thread(target=work_on_runs, args=(services, over))
    worker.start()
    yield services
    over.set()
    worker.join()
    services.stop()


def work_on_runs(services: Services, over: threading.Event) -> None:
    """What a detection worker does with its leases, and finds nothing: how long a detector takes is not the matter."""
    while not over.wait(0.2):
        claimed = services.runs.claim("a worker of the test")
        if claimed is not None:
            over.wait(0.5)
            services.runs.renew(claimed)
            services.runs.finish(claimed, [])


def upload(services: Services, number: int) -> None:
    wanted = RunRequest("ada", confidence=0.5, frame_interval=1.0)
    upload = Upload(f"{number}.png", "ada", [photo(number)])
    services.ingest.run(upload, lambda connection, media: services.runs.add(connection, media.id, wanted))


def count(services: Services, condition: ColumnElement[bool]) -> int:
    with services.database.read_transaction() as session:
        return session.scalar(select(func.count()).where(condition)) or 0


def leave_leases_of_the_dead(services: Services) -> None:
    """One stream and one run are leased, by the wrong clock, to a process that is no more."""
    now = services.database.now
    with services.database.write_transaction() as session:
        stream = session.scalars(select(OutboxStream).where(OutboxStream.acked_seq < OutboxStream.last_seq)).first()
        assert stream is not None
        stream.lease_owner, stream.lease_epoch = "of one that died", stream.lease_epoch + 1
        session.flush()
        session.execute(update(OutboxStream).where(OutboxStream.media_id == stream.media_id).values(due_at=now + 30))
        run = select(DetectionRun.id).where(DetectionRun.state == RunState.QUEUED).limit(1).scalar_subquery()
        session.execute(
            update(DetectionRun)
            .where(DetectionRun.id == run)
            .values(state=RunState.RUNNING, lease_owner="of one that died", lease_until=now + 15, lease_epoch=1)
        )


def test_everything_is_delivered_and_finished_soon_after_the_clock_and_the_other_side_are_right(
    services: Services, annotations: ReferenceService, clock: SteppingClock
) -> None:
    upload(services, 0)
    annotations.wait_for(lambda log: sum(entry["applied"] for entry in log) == 3, seconds=SOON)
    annotations.stop()
    for number in range(1, ITEMS):
        upload(services, number)
    annotations_are_away = OutboxStream.last_error.is_not(None)
    eventually(lambda: count(services, annotations_are_away) > 0, "a try that failed", seconds=SOON)
    leave_leases_of_the_dead(services)
    clock.offset = 0.0
    annotations.start()
    began = time.monotonic()
    unfinished = DetectionRun.state.in_([RunState.QUEUED, RunState.RUNNING])
    waiting = OutboxStream.due_at.is_not(None)
    eventually(lambda: not count(services, unfinished) and not count(services, waiting), "all to be done", seconds=SOON)
    assert time.monotonic() - began < SOON
    assert count(services, DetectionRun.state == RunState.DONE) == ITEMS
    assert count(services, OutboxStream.parked_at.is_not(None)) == 0
    assert {record["mediaStatus"] for record in annotations.records()} == {3}
    assert len(annotations.records()) == ITEMS
    assert check_log(annotations.log()) == []
