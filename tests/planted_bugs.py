"""The checks, checked: plants one bug at a time in a copy of the tree and sees that the tests notice.

    python -m tests.planted_bugs [--list] [--tests FILE] [NAME…]

Each bug is a change of text: what it replaces must be there exactly once, or the command fails and says so, so that a
bug cannot quietly become no bug when the code moves on. First the tests must pass in the untouched copy; then each bug
must make them fail (an error while they are collected does not count). Prints a table; exit 1 if a bug survives, 2 if
one cannot be planted or the untouched copy fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bugs import BUGS, Bug
from tests.paths import ROOT

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", ".*_cache", ".hypothesis", "__pycache__", ".coverage*")
PASSED, FAILED = 0, 1
"""Exit codes of pytest; every other one says that the tests did not run as they should."""


class CannotPlant(Exception):
    """The text that a bug replaces is not there exactly once."""


@contextmanager
def planted(tree: Path, bug: Bug) -> Iterator[None]:
    """The tree with the bug in it, and without it afterwards."""
    before = {edit.file: (tree / edit.file).read_text() for edit in bug.edits}
    try:
        for edit in bug.edits:
            file = tree / edit.file
            text = file.read_text()
            if text.count(edit.old) != 1:
                raise CannotPlant(f"{bug.name!r}: found {text.count(edit.old)} times in {edit.file}:\n{edit.old}")
            file.write_text(text.replace(edit.old, edit.new))
        yield
    finally:
        for name, text in before.items():
            (tree / name).write_text(text)


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code in that tree, and its last lines."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    # Compiled files of its own each time: an edit of the same length within a second would pass for none.
    with tempfile.TemporaryDirectory(prefix="compiled-") as compiled:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=tree,
            env=clean | {"PYTHONPYCACHEPREFIX": compiled},
            capture_output=True,
            text=True,
            check=False,
        )
    return ran.returncode, "\n".join((ran.stdout + ran.stderr).strip().splitlines()[-15:])


def first_failure(output: str) -> str:
    """The name of the test that noticed."""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split("::")[-1].split(" - ")[0] if failed else ""


def check_all(tree: Path, bugs: Sequence[Bug], console: Console) -> int:
    """Plant each, run its tests, print the table; returns the command's exit code."""
    everything = sorted({test for bug in bugs for test in bug.tests})
    code, output = run_tests(tree, everything)
    if code != PASSED:
        console.print("Without any bug the tests do not pass:", output, markup=False, sep="\n")
        return 2
    table = Table("bug", "", "seconds", "noticed by", box=None, pad_edge=False)
    caught, broken = 0, False
    for bug in bugs:
        began = time.monotonic()
        with planted(tree, bug):
            code, output = run_tests(tree, bug.tests)
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
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=LEFT_OUT))
        try:
            for bug in bugs:
                with planted(tree, bug):
                    pass
            return check_all(tree, bugs, console)
        except CannotPlant as error:
            console.print(str(error), markup=False)
            return 2


if __name__ == "__main__":
    sys.exit(main())
