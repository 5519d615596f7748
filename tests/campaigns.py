"""What once held, tried again: campaigns that take minutes, each by its name.

    python -m tests.campaigns [NAME…]

Without a name: all of them. Each step is a command of its own; a table says which held and how long each took, and the
exit code is 1 where one did not. docs/reliability.md has the last results.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Step:
    """One command: arguments of `python -m`, and settings for its environment."""

    arguments: str
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.settings.items()), self.arguments])

    def run(self) -> bool:
        """Whether it held; what it prints is seen."""
        command = [sys.executable, "-m", *shlex.split(self.arguments)]
        return subprocess.run(command, env=os.environ | self.settings, check=False).returncode == 0


def pytest(tests: str, **settings: str) -> Step:
    return Step(f"pytest -q --timeout=0 {tests}", settings)


CAMPAIGNS: dict[str, Sequence[Step]] = {
    # What bin/test leaves out for its length: the other database, other kinds of the same, whole demos and kills.
    "long": (
        Step("pytest -q -n 2 --dist loadscope -m 'long and not alone'"),
        Step("pytest -q -m 'long and alone'"),
    ),
    # A receiver as its team would write it: every code, kills, slow and broken answers, restored, told again.
    "receiver": (
        Step("tests.outbox.campaign --small"),
        Step("tests.outbox.campaign --only 12"),
        pytest("tests/system/test_receiving.py", RECEIVER_ITEMS="497"),
        pytest("tests/annotations tests/system/test_wrong_clocks.py"),
        pytest("tests/system/test_outages.py -k network"),
    ),
    # PostgreSQL: backends ended at their commit, crashes, lost answers to COMMIT, clocks, frozen dispatchers, poolers.
    "postgresql": (
        pytest("tests/system/test_outages.py -k postgres", OUTAGE_UPLOADS="1000"),
        pytest("tests/ingest/test_unknown_commits.py"),
        pytest("tests/database/test_postgres_connection.py tests/database/test_postgres.py"),
        pytest("tests/system/test_frozen_dispatcher.py tests/outbox/test_clock_steps.py tests/outbox/test_hosts.py"),
        pytest("tests/system/test_silent_database.py", SILENT_SECONDS="45"),
        pytest("tests/system/test_poolers.py", FAILOVER_UPLOADS="1000"),
    ),
    # Kills at every system call of an upload that changes something.
    "crashes": (
        pytest("tests/ingest/test_crash_points.py", CRASH_POINTS="every"),
        pytest("tests/system/test_kill.py", TEST_KILLS="200", TEST_KILL_CLIENTS="8"),
    ),
    # What holds for whatever numbers, names and sequences there are, with more of them.
    "examples": (
        pytest("tests -m hypothesis", HYPOTHESIS_EXAMPLES="1000"),
        pytest("tests/system/test_hostile_requests.py", HOSTILE_REQUESTS="10000"),
        pytest("tests/system/test_schemathesis.py", SCHEMATHESIS_EXAMPLES="1000"),
        pytest("tests/outbox/test_state_machine.py", OUTBOX_MACHINE_EXAMPLES="1000", OUTBOX_MACHINE_STEPS="50"),
    ),
    # SQLite: its file moved, replaced, refused and locked, kills and power losses.
    "sqlite": (Step("tests.system.sqlite_campaign"),),
    # An operator's day under constant load: a log that takes nothing, reloads that cannot be, keys that change.
    "operator": (
        Step("tests.system.operator_campaign"),
        pytest("tests/runs/test_house.py", HOUSE_RUNS="50", HOUSE_SECONDS="60"),
    ),
}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(CAMPAIGNS)}")
    names = parser.parse_args().names or list(CAMPAIGNS)
    if unknown := [name for name in names if name not in CAMPAIGNS]:
        parser.error(f"there is no campaign {unknown[0]}: {', '.join(CAMPAIGNS)}")
    table, broken = Table("campaign", "step", "held", "seconds", box=None), False
    for name in names:
        for step in CAMPAIGNS[name]:
            began = time.monotonic()
            held = step.run()
            broken |= not held
            table.add_row(name, str(step), "yes" if held else "NO", f"{time.monotonic() - began:.0f}")
    Console(width=160).print(table)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
