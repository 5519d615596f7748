"""The checks, checked: plants one bug at a time in the programs that the tests run, and sees that the tests notice.

    python -m tests.planted_bugs [--list] [--tests FILE] [NAME…]

Each bug changes how something of the application behaves (tests/bugs), in every process of a test run, by way of
tests/bugs/planting/sitecustomize.py; no file is changed. What a bug replaces must be there, or the command fails and
says so, so that a bug cannot quietly become no bug when the code moves on. First the tests must pass without a bug;
then each bug must make them fail (an error while they are collected does not count). Prints a table; exit 1 if a bug
survives, 2 if one cannot be planted or the tests fail without any.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bugs import BUGS, Bug
from tests.paths import ROOT

PLANTING = ROOT / "tests" / "bugs" / "planting"
PASSED, FAILED = 0, 1
"""Exit codes of pytest; every other one says that the tests did not run as they should."""


def run_python(arguments: Sequence[str], bug: Bug | None = None) -> tuple[int, str]:
    """The exit code of Python with these arguments, the bug planted in it, and its last lines."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    if bug is not None:
        clean |= {"PLANTED_BUG": bug.name, "PYTHONPATH": f"{PLANTING}{os.pathsep}{ROOT}"}
    ran = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    return ran.returncode, "\n".join((ran.stdout + ran.stderr).strip().splitlines()[-15:])


def run_tests(tests: Sequence[str], bug: Bug | None = None) -> tuple[int, str]:
    """pytest's exit code with the bug planted, and its last lines."""
    return run_python(["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests], bug)


def first_failure(output: str) -> str:
    """The name of the test that noticed."""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split("::")[-1].split(" - ")[0] if failed else ""


def check_all(bugs: Sequence[Bug], console: Console) -> int:
    """Plant each, run its tests, print the table; returns the command's exit code."""
    everything = sorted({test for bug in bugs for test in bug.tests})
    code, output = run_tests(everything)
    if code != PASSED:
        console.print("Without any bug the tests do not pass:", output, markup=False, sep="\n")
        return 2
    table = Table("bug", "", "seconds", "noticed by", box=None, pad_edge=False)
    caught, broken = 0, False
    for bug in bugs:
        began = time.monotonic()
        code, output = run_tests(bug.tests, bug)
        caught += code == FAILED
        broken |= code not in (PASSED, FAILED)
        verdict = {PASSED: "SURVIVED", FAILED: "caught"}.get(code, f"pytest ended with {code}: {output}")
        table.add_row(bug.name, verdict, f"{time.monotonic() - began:.1f}", escape(first_failure(output)))
        console.print(f"{bug.name}: {verdict}", markup=False)
    console.print(table)
    console.print(f"{caught} of {len(bugs)} caught", markup=False)
    return 2 if broken else int(caught < len(bugs))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only bugs whose names contain this")
    parser.add_argument("--tests", metavar="FILE", help="see whether these tests notice, instead of each bug's own")
    parser.add_argument("--list", action="store_true", help="name the bugs and end")
    arguments = parser.parse_args()
    console = Console(width=200, highlight=False)
    bugs = [bug for bug in BUGS if not arguments.names or any(name in bug.name for name in arguments.names)]
    if arguments.tests:
        bugs = [replace(bug, tests=[arguments.tests]) for bug in bugs]
    if arguments.list:
        console.print("\n".join(bug.name for bug in bugs), markup=False)
        return 0
    code, output = run_python(["-m", "tests.bugs"])
    if code != 0:
        console.print(output, markup=False)
        return 2
    return check_all(bugs, console)


if __name__ == "__main__":
    sys.exit(main())
