"""Figures of the house for Prometheus: which code runs, whether it is ready, how much room is left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.process import revision
from app.process.version import VERSION
from app.services import Services
from app.web.readiness import FOLDERS_SILENT, Readiness


class HouseCollector(Collector):
    """Yields what this process finds. A disk that does not answer has no room told, instead of keeping the answer."""

    def __init__(self, services: Services, readiness: Readiness) -> None:
        self._services = services
        self._troubles = readiness.troubles()

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("detections_build_info", "Always 1.", labels=("version", "revision"))
        build.add_metric([VERSION, revision.of_this_code()], 1)
        yield build
        yield GaugeMetricFamily("detections_ready", "1 where /readyz is 200.", float(not self._troubles))
        free = GaugeMetricFamily("detections_free_bytes", "Bytes free on the disk of each place.", labels=("place",))
        if FOLDERS_SILENT not in self._troubles:
            for place, folder in self._places():
                try:
                    free.add_metric([place], shutil.disk_usage(folder).free)
                except OSError:
                    continue
        yield free

    def _places(self) -> Iterator[tuple[str, Path]]:
        for folder in self._services.storage.folders:
            yield folder.name, folder
        file = self._services.settings.database.file
        if file is not None:
            yield "database", file.parent
