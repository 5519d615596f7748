"""Pinning of a server process to a processor, and of the processes that it starts."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.process.processors import available_count, least_used, pin_to, usable


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [([], 4), ([4], 5), ([4, 5], 6), ([4, 5, 6], 4), ([4, 4, 5], 6), ([4, 6, None, 9], 5)],
)
def test_a_process_gets_a_processor_that_the_fewest_have(taken: list[int | None], chosen: int) -> None:
    assert least_used([4, 5, 6], taken) == chosen


def test_servers_of_one_machine_begin_with_different_processors() -> None:
    assert {least_used([4, 5, 6], [], first=pid) for pid in range(1000, 1003)} == {4, 5, 6}


def test_where_the_system_tells_of_no_processors_none_is_chosen() -> None:
    assert least_used([], [], first=7) is None


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"a/b": "max 100000", "a": "max 100000"}, math.inf),
        ({"a/b": "100000 100000"}, 1),
        ({"a/b": "max 100000", "a": "50000 100000"}, 1),
        ({"": "100 100000"}, 1),
        ({"a/b": "150000 100000"}, 2),
        ({"a/b": "6400000 100000"}, math.inf),
        ({"other": "100000 100000"}, math.inf),
        ({"a/b": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_quota_counts_as_so_many_processors(quotas: dict[str, str], expected: float, tmp_path: Path) -> None:
    for group, quota in quotas.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "cpu.max").write_text(quota + "\n")
    membership = tmp_path / "cgroup"
    membership.write_text("3:cpu:/elsewhere\n0::/a/b\n")
    assert available_count(membership, tmp_path / "groups") == min(len(usable()) or os.cpu_count() or 1, expected)


def test_where_the_system_tells_of_no_groups_every_usable_processor_counts(tmp_path: Path) -> None:
    assert available_count(tmp_path / "none", tmp_path) == (len(usable()) or os.cpu_count())


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process on a processor")
def test_a_process_stays_on_its_processor_and_what_it_starts_anywhere_does_not() -> None:
    seen = subprocess.run([sys.executable, "-c", _ON_ONE], capture_output=True, text=True, check=True, timeout=60)
    everywhere, here, thread, child, afterwards = seen.stdout.splitlines()
    assert here == thread == afterwards == str([max(os.sched_getaffinity(0))])
    assert child == everywhere == str(sorted(os.sched_getaffinity(0)))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process on a processor")
def test_a_processor_that_the_system_refuses_leaves_a_process_as_it_is() -> None:
    before = os.sched_getaffinity(0)
    pin_to(100_000)
    assert os.sched_getaffinity(0) == before


_ON_ONE = """
import os, subprocess, sys, threading
from app.process import processors

def tell():
    print(processors.usable(), flush=True)

tell()
processors.pin_to(max(processors.usable()))
tell()
thread = threading.Thread(target=tell)
thread.start()
thread.join()
with processors.unpinned():
    subprocess.run([sys.executable, "-c", "from app.process import processors; print(processors.usable())"], check=True)
tell()
"""
