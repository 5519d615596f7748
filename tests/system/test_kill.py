"""The whole service is killed, again and again, in the middle of uploads: what it had promised is kept.

The quick form of the second half of row 1 of docs/reliability.md. The full one:

    TEST_KILLS=200 TEST_KILL_CLIENTS=8 python -m pytest tests/system/test_kill.py

Each start has its own moment of death; TEST_KILL_SEED repeats those of a failed run, as far as threads let it.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
import requests

from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import Service

KILLS = int(os.environ.get("TEST_KILLS", "2"))
CLIENTS = int(os.environ.get("TEST_KILL_CLIENTS", "4"))
SEED = int(os.environ.get("TEST_KILL_SEED") or time.time_ns() % 1_000_000)
EVERY_NTH_IS_DETECTED = 5


def upload_until(dead: threading.Event, service: Service, uploads: Uploads, numbers: Iterator[int]) -> None:
    """One photo after the other, each another one."""
    while not dead.is_set():
        number = next(numbers)
        path = "/detect" if number % EVERY_NTH_IS_DETECTED == 0 else "/media"
        uploads.send(service, path, photo(number))


def upload_half(dead: threading.Event, service: Service, number: int) -> None:
    """The first half of a photo, and the rest to a service that is no more."""
    content = photo(number)

    def halves() -> Iterator[bytes]:
        yield content[: len(content) // 2]
        dead.wait(30)
        yield content[len(content) // 2 :]

    with pytest.raises(requests.RequestException):
        service.request("POST", "/media?name=photo.png", data=halves(), headers={"Content-Type": "image/png"})


@pytest.mark.timeout(120 + 15 * KILLS)
def test_whatever_was_promised_before_a_kill_is_kept(service: Service, annotations: ReferenceService) -> None:
    moments = random.Random(SEED)
    numbers, uploads = count(), Uploads()
    for _ in range(KILLS):
        dead = threading.Event()
        clients = [
            threading.Thread(target=upload_until, args=(dead, service, uploads, numbers)) for _ in range(CLIENTS)
        ]
        clients.append(threading.Thread(target=upload_half, args=(dead, service, next(numbers))))
        for client in clients:
            client.start()
        time.sleep(moments.uniform(0.1, 1.0))
        service.kill()
        dead.set()
        for client in clients:
            client.join()
        service.start("--workers", "2")  # as many as a machine of two processors has by itself
    print(f"seed {SEED}: {len(uploads.promised)} promised, {uploads.cut_off} cut off, refused: {uploads.refused}")
    assert uploads.promised
    assert uploads.cut_off >= KILLS  # each kill met clients that were waiting for their answers
    settle(service, seconds=60)
    assert_kept(service, annotations, [uploads])
