"""Clients that upload without a pause while something is done to the service, and what came of their uploads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles

from tests.system.promise import Uploads, photo
from tests.system.service import Service

CLIENTS = 4
PAUSE = 0.2  # of each client: 20 uploads a second


@dataclass
class Load:
    """Clients that upload until stopped, and what came of it."""

    uploads: list[Uploads] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def on(self, service: Service, first: int = 0) -> Iterator[None]:
        """Upload photos, numbered from `first` on, while the block runs."""
        stopping = threading.Event()
        mine = [Uploads() for _ in range(CLIENTS)]
        self.uploads += mine
        threads = [
            threading.Thread(target=self._go, args=(service, uploads, first + number, stopping))
            for number, uploads in enumerate(mine)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    def _go(self, service: Service, uploads: Uploads, number: int, stopping: threading.Event) -> None:
        while not stopping.wait(PAUSE):
            began = time.monotonic()
            uploads.send(service, "/media", photo(number))
            self.seconds.append(time.monotonic() - began)
            number += CLIENTS

    @property
    def promised(self) -> set[str]:
        return {media_id for uploads in self.uploads for media_id in uploads.promised}

    @property
    def refused(self) -> set[int]:
        return {status for uploads in self.uploads for status in uploads.refused}

    def figure(self) -> str:
        p50 = quantiles(self.seconds, n=2)[0]
        return f"{len(self.promised)} acknowledged, p50 {p50 * 1000:.0f} ms, worst {max(self.seconds):.1f} s"
