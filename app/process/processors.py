"""How many processors there are for this service, and which of them a server process runs on: one, so that its threads
pass the interpreter's lock on within it.

One thread of a process runs Python at a time, and lets another go on at each system call. Waking that one on another
processor takes as long as much of the work in between: an upload of a photo, with its hundred calls, costs up to a
third less where all of them share a processor. What a server process starts for itself, detectors, may run anywhere.
Where the system knows no such thing, as macOS, or refuses it, as some containers, nothing happens.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_SERVING = 4
"""Server processes beyond these would wait for each other's commits, where the database is SQLite."""

_usable_before: list[list[int]] = []


def usable() -> list[int]:
    """The processors that this thread may run on, in order; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def available_count(membership: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """As many processors as this process may run on, or as it is given the time of, where a container or a service
    manager has set a quota (cgroup v2): a machine's 64 are of no use to a container that may use two."""
    count = len(usable()) or os.cpu_count() or 1
    return min([count, *(max(1, math.ceil(quota)) for quota in _quotas(membership, groups))])


def default_server_processes() -> int:
    """How many server processes there are, unless somebody wants another number: one for each processor."""
    return min(MOST_SERVING, available_count())


def _quotas(membership: Path, groups: Path) -> Iterator[float]:
    """Those of this process's control group and of the groups around it, in processors."""
    with suppress(OSError, ValueError):  # no Linux, no cgroup v2, or nothing that we are to see
        lines = membership.read_text().splitlines()
        own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
        group = groups / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(groups) and (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
                if quota != "max":
                    yield int(quota) / int(period)


def least_used(processors: list[int], taken: Iterable[int | None], *, first: int = 0) -> int | None:
    """One that the fewest have taken; among equals the next from position `first` on, so that not every server of a
    machine begins with the same one. None where there are none."""
    if not processors:
        return None
    counts = Counter(taken)
    start = first % len(processors)
    return min(processors[start:] + processors[:start], key=lambda processor: counts[processor])


def pin_to(processor: int) -> None:
    """Keep this thread, and every thread and process that it starts, on one processor."""
    before = usable()
    if _move_to([processor]):
        _usable_before.append(before)


@contextmanager
def unpinned() -> Iterator[None]:
    """Processes started within may run wherever this one could before `pin_to`."""
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
