"""Fixtures: media items with runs on each kind of database, and their results."""

from pathlib import Path

import pytest
from sqlalchemy import select

from app.database import Database
from app.database.models import Detection, DetectionRun, Media, MediaStatus, OutboxMessage
from app.detection.results import DetectedObject, FrameResult
from app.media.status import create_media
from app.outbox.queue import OutboxQueue
from app.runs.claims import ClaimedRun
from app.runs.lifecycle import RunRequest, Runs

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5, request_id="request-1")
LEASE = 15.0


def frame(index: int, count: int = 1) -> FrameResult:
    """Return the result of a frame with `count` objects."""
    found = DetectedObject(0, "person", 0.9, 0.5, 0.5, 0.25, 0.25)
    return FrameResult(index, index / 2, (found,) * count)


class World:
    """One database with its runs."""

    def __init__(self, database: Database, detector: str = "detector-1", lease_seconds: float = LEASE) -> None:
        self.database = database
        self.queue = OutboxQueue(database.now)
        self.runs = Runs(database, self.queue, detector, lease_seconds=lease_seconds)
        self._made = 0

    def media(self, path: Path = Path("/images/picture.jpg"), media_type: str = "Image") -> str:
        """Add a media item without a run."""
        self._made += 1
        media = Media(
            id=f"{self._made:016x}",
            name=path.name,
            path=f"{path}" if path.exists() else f"{path}-{self._made}",
            media_type=media_type,
            user_id="ada",
            size_bytes=path.stat().st_size if path.exists() else 1,
            created_at=1.0,
        )
        with self.database.write_transaction() as session:
            create_media(session, self.queue, media, request_id=None)
        return media.id

    def claimed(self, owner: str = "one") -> ClaimedRun:
        claimed = self.runs.claim(owner)
        assert claimed is not None
        return claimed

    def run(self, run_id: int) -> DetectionRun:
        with self.database.read_transaction() as session:
            return session.get_one(DetectionRun, run_id)

    def status(self, media_id: str) -> MediaStatus:
        with self.database.read_transaction() as session:
            return MediaStatus(session.get_one(Media, media_id).media_status)

    def reported(self, media_id: str) -> list[int]:
        """Return the statuses in a media item's messages, in order."""
        with self.database.read_transaction() as session:
            rows = select(OutboxMessage).where(OutboxMessage.media_id == media_id).order_by(OutboxMessage.seq)
            return [row.payload["mediaStatus"] for row in session.scalars(rows)]

    def found(self, run_id: int) -> list[tuple[int, int]]:
        """Return (frame, ordinal) of every object that a run found."""
        with self.database.read_transaction() as session:
            rows = select(Detection).where(Detection.run_id == run_id).order_by(Detection.frame, Detection.ordinal)
            return [(row.frame, row.ordinal) for row in session.scalars(rows)]


@pytest.fixture
def world(timed_database: Database) -> World:
    """Runs on the clock of the `clock` fixture."""
    return World(timed_database)


@pytest.fixture
def live_world(database: Database) -> World:
    """Runs on real time, with short leases."""
    return World(database, lease_seconds=2.0)
