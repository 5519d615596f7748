"""Figures of the media folders, of the database's size and of its history for Prometheus."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.database import Database, history
from app.storage.folder_ownership import FolderOwnership

_SIZES = {"database": "What the database takes on its disk.", "wal": "What SQLite's log takes on its disk."}


class HistoryCollector(Collector):
    """Yields the epoch, whether a restoration waits for a person, and whether each media folder is the one it was."""

    def __init__(self, session: Session, folders: FolderOwnership, database: Database) -> None:
        self._session = session
        self._database = database
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        stored = history.get(self._session)
        yield GaugeMetricFamily(
            "detections_outbox_epoch",
            "Grows where the database was restored from a copy.",
            float(stored.reached.epoch if stored else 1),
        )
        yield GaugeMetricFamily(
            "detections_database_restored",
            "1 from a restoration until what the annotations service lacks was sent again.",
            float(stored is not None and stored.restored_at is not None),
        )
        usable = GaugeMetricFamily(
            "detections_media_folder_ok", "1 where the folder is the one that it was.", labels=["place"]
        )
        for folder, reason in self._folders.known_reasons.items():
            usable.add_metric([folder.name], float(reason is None))
        yield usable
        for name, size in self._database.sizes(self._session).items():
            yield GaugeMetricFamily(f"detections_{name}_bytes", _SIZES[name], float(size))
