"""Metrics of the database's history and size, and of the media folders."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.database import Database, history
from app.storage.folder_ownership import FolderOwnership

_SIZE_HELP = {"database": "Size of the database on disk.", "wal": "Size of SQLite's write-ahead log on disk."}


class DatabaseCollector(Collector):
    """Yields the outbox's epoch, whether a restored database awaits action, and the state of each media folder."""

    def __init__(self, session: Session, folders: FolderOwnership, database: Database) -> None:
        self._session = session
        self._database = database
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        stored = history.get(self._session)
        yield GaugeMetricFamily(
            "detections_outbox_epoch",
            "Increases when the database was restored from a copy.",
            float(stored.reached.epoch if stored else 1),
        )
        yield GaugeMetricFamily(
            "detections_database_restored",
            "1 after a restoration until what the annotations service lacks was sent again.",
            float(stored is not None and stored.restored_at is not None),
        )
        usable = GaugeMetricFamily(
            "detections_media_folder_ok", "1 if the folder belongs to this database.", labels=["place"]
        )
        for folder, reason in self._folders.known_reasons.items():
            usable.add_metric([folder.name], float(reason is None))
        yield usable
        for name, size in self._database.sizes(self._session).items():
            yield GaugeMetricFamily(f"detections_{name}_bytes", _SIZE_HELP[name], float(size))
