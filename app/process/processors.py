"""The number of usable processors, and the pinning of a server process to one of them.

One thread of a process runs Python at a time and hands over at system calls. Waking a thread on another processor takes
long compared to the work between two calls: a photo's upload, with about a hundred calls, costs up to a third less if
all threads share a processor. Detector processes are not pinned. If the system has no affinity (macOS) or refuses it
(some containers), nothing is pinned.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_DEFAULT_PROCESSES = 4
"""More server processes would wait for each other's commits on SQLite."""

_usable_before: list[list[int]] = []


def usable() -> list[int]:
    """Return the processors that this thread may run on, in order; empty if the system has no affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def available_count(membership: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this process may use: those of its affinity, within the quotas of cgroup v2."""
    count = len(usable()) or os.cpu_count() or 1
    return min([count, *(max(1, math.ceil(quota)) for quota in _quotas(membership, groups))])


def default_server_processes() -> int:
    """Return the default number of server processes: one for each processor, at most MAX_DEFAULT_PROCESSES."""
    return min(MAX_DEFAULT_PROCESSES, available_count())


def _quotas(membership: Path, groups: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's control group and its parents, in processors."""
    with suppress(OSError, ValueError):  # not Linux, no cgroup v2, or not readable
        lines = membership.read_text().splitlines()
        own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
        group = groups / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(groups) and (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
                if quota != "max":
                    yield int(quota) / int(period)


def least_used(processors: list[int], taken: Iterable[int | None], *, first: int = 0) -> int | None:
    """Return the processor that occurs least in `taken`; None if there are none.

    Among equals it is the next from position `first` on, so that servers of one machine start with different ones.
    """
    if not processors:
        return None
    counts = Counter(taken)
    start = first % len(processors)
    return min(processors[start:] + processors[:start], key=lambda processor: counts[processor])


def pin_to(processor: int) -> None:
    """Pin this thread, and the threads and processes that it starts, to one processor."""
    before = usable()
    if _move_to([processor]):
        _usable_before.append(before)


@contextmanager
def unpinned() -> Iterator[None]:
    """Within the block, start processes that may run on all processors that this one could use before `pin_to`."""
    if not _usable_before:
        yield
        return
    now = usable()
    _move_to(_usable_before[0])
    try:
        yield
    finally:
        _move_to(now)


def _move_to(processors: list[int]) -> bool:
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        return False
    return True
