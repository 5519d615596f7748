"""Metrics of the service: its version, readiness and free disk space."""

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


class ServiceCollector(Collector):
    """Yields what this process observes. Free space is omitted for disks that do not respond."""

    def __init__(self, services: Services, readiness: Readiness) -> None:
        self._services = services
        self._reasons = readiness.reasons()

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("detections_build_info", "Always 1.", labels=("version", "revision"))
        build.add_metric([VERSION, revision.of_this_code()], 1)
        yield build
        yield GaugeMetricFamily("detections_ready", "1 if /readyz returns 200.", float(not self._reasons))
        free = GaugeMetricFamily("detections_free_bytes", "Free bytes on the disk of each place.", labels=("place",))
        if FOLDERS_SILENT not in self._reasons:
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
