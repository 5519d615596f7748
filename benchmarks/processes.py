"""What a server and its children cost, as Linux counts it in /proc."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _fields(pid: str) -> list[str]:
    """The fields of a process's stat behind its name, from the state on; none where it has gone."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def members(group: int) -> list[int]:
    """The processes of a process group."""
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(pid) for pid in pids if (fields := _fields(pid)) and int(fields[2]) == group]


def cpu_seconds(group: int) -> float:
    """What the living processes of a group have used so far, in user and in kernel mode."""
    used = 0
    for pid in members(group):
        fields = _fields(str(pid))
        used += int(fields[11]) + int(fields[12]) if fields else 0
    return used / TICKS


def begin_peak(pid: int) -> None:
    """Count the peak of a process's memory from now on."""
    Path("/proc", str(pid), "clear_refs").write_text("5")


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """What a process has in memory now, or had at most since its peak was begun."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no {name}")
