"""Where the processes of a running service are: each worker on a processor of its own, its detectors on all."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from app.process.processors import available_count
from tests.eventually import eventually
from tests.paths import ROOT
from tests.system.service import Service

ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
USABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

pytestmark = pytest.mark.skipif(len(USABLE) < 2, reason="there is no choice of processors here")


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, None)
    yield service
    service.stop()
    service.kill()


def test_every_worker_stays_on_a_processor_of_its_own_and_its_detectors_may_use_all(service: Service) -> None:
    service.start("--workers", "2")
    assert service.upload("/detect", ASTRONAUT).status_code == 201
    workers = settled_workers(service)
    assert shared_by_threads(workers[0]) != shared_by_threads(workers[1])
    detectors = [detector for worker in workers for detector in detectors_of(worker)]
    assert detectors
    assert all(detector.cpu_affinity() == USABLE for detector in detectors)


def test_unless_told_otherwise_there_is_a_worker_for_each_processor(service: Service) -> None:
    del service.environment["WEB_CONCURRENCY"]
    service.start()
    settled_workers(service, count=min(4, available_count()))


@pytest.mark.long
def test_the_workers_share_the_detectors_out(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, None, DETECTION_WORKERS="3")
    try:
        service.start("--workers", "2")
        workers = settled_workers(service)
        photos = [ASTRONAUT.read_bytes() + bytes([number]) for number in range(12)]
        with ThreadPoolExecutor(len(photos)) as clients:
            answers = list(clients.map(lambda photo: service.upload("/detect", photo), photos))
        assert {answer.status_code for answer in answers} == {201}
        assert [len(detectors_of(worker)) for worker in workers] == [2, 2]
    finally:
        service.stop()
        service.kill()


def test_a_worker_that_replaces_another_takes_the_processor_that_became_free(service: Service) -> None:
    service.start("--workers", "2")
    gone, other = settled_workers(service)
    freed = shared_by_threads(gone)
    gone.kill()
    [new] = [worker for worker in settled_workers(service, without=gone) if worker != other]
    assert shared_by_threads(new) == freed


def test_workers_may_be_left_on_all_processors(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, None, WORKER_PROCESSORS="all")
    try:
        service.start()
        [worker] = workers_of(service)
        assert shared_by_threads(worker) == USABLE
    finally:
        service.stop()
        service.kill()


def settled_workers(service: Service, *, count: int = 2, without: psutil.Process | None = None) -> list[psutil.Process]:
    """So many workers, none of them `without`, once each stays on one processor."""

    def settled() -> list[psutil.Process]:
        workers = [worker for worker in workers_of(service) if worker != without]
        is_settled = len(workers) == count and all(len(shared_by_threads(worker)) == 1 for worker in workers)
        return workers if is_settled else []

    return eventually(settled, "each worker on a processor")


def workers_of(service: Service) -> list[psutil.Process]:
    assert service.process is not None
    children: list[psutil.Process] = psutil.Process(service.process.pid).children()
    return children


def detectors_of(worker: psutil.Process) -> list[psutil.Process]:
    return [child for child in worker.children() if "child.py" in " ".join(child.cmdline())]


def shared_by_threads(process: psutil.Process) -> list[int]:
    """The processors of all the process's threads, each once."""
    found: set[int] = set()
    for thread in process.threads():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            found |= os.sched_getaffinity(thread.id)
    return sorted(found)
