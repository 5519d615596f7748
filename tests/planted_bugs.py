"""The checks, checked: plants one bug at a time in a copy of the tree and sees that the tests notice.

    python -m tests.planted_bugs [--list] [NAME…]

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
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", ".*_cache", ".hypothesis", "__pycache__", ".coverage*")
PASSED, FAILED = 0, 1
"""Exit codes of pytest; every other one says that the tests did not run as they should."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """What a tired programmer might have written; `tests` are those that should notice."""

    name: str
    edits: Sequence[Edit]
    tests: Sequence[str]


class CannotPlant(Exception):
    """The text that a bug replaces is not there exactly once."""


STATEMENTS, QUEUE, FLUSH = "app/outbox/statements.py", "app/outbox/queue.py", "app/outbox/flush.py"
DISPATCHER, GATE_KEEPER = "app/outbox/dispatcher.py", "app/outbox/gatekeeper.py"
STORAGE, UPLOADS = "app/storage.py", "app/uploads.py"
CLAIMS, ENQUEUE, OUTCOMES = (
    "tests/outbox/test_claims.py",
    "tests/outbox/test_enqueue.py",
    "tests/outbox/test_outcomes.py",
)
GATE, FLUSHES, PROCESSES = "tests/outbox/test_gate.py", "tests/outbox/test_flush.py", "tests/outbox/test_processes.py"
MACHINE, CRASHES, INTAKE = "tests/outbox/test_state_machine.py", "tests/test_crash_points.py", "tests/test_uploads.py"
FENCES = 'tuple_(_S.media_id, _S.lease_epoch, _S.acked_seq + 1).in_(bindparam("fences", expanding=True)),'

BUGS = (
    Bug(
        "an acknowledgement without a fence",
        [Edit(STATEMENTS, FENCES, f"or_(true(), {FENCES.rstrip(',')}),")],
        [CLAIMS],
    ),
    Bug(
        "an acknowledgement that does not look at acked_seq",
        [
            Edit(STATEMENTS, FENCES, 'tuple_(_S.media_id, _S.lease_epoch).in_(bindparam("fences", expanding=True)),'),
            Edit(QUEUE, "(media, tried.claim.epoch, tried.claim.message.seq) for", "(media, tried.claim.epoch) for"),
        ],
        [OUTCOMES],
    ),
    Bug(
        "an outcome that does not look at the lease's epoch",
        [Edit(QUEUE, "            & (OutboxStream.lease_epoch == self.epoch)\n", "")],
        [CLAIMS],
    ),
    Bug(
        "an outcome recorded though the lease was let go",
        [Edit(QUEUE, "            & OutboxStream.lease_owner.is_not(None)\n", "")],
        [OUTCOMES],
    ),
    Bug(
        "a gap in the numbers",
        [Edit(STATEMENTS, '"last_seq": _S.last_seq + 1,', '"last_seq": _S.last_seq + 2,')],
        [ENQUEUE],
    ),
    Bug(
        "a backoff shortened by the next message",
        [Edit(STATEMENTS, "case((_S.parked_at.is_(None), func.coalesce(_S.due_at, self.now)))", "self.now")],
        [ENQUEUE],
    ),
    Bug(
        "a claim that takes what is leased",
        [Edit(STATEMENTS, "_S.due_at <= self.now, chosen", "_S.due_at.is_not(None), chosen")],
        [CLAIMS],
    ),
    Bug(
        "a lease that ran out forgotten",
        [Edit(STATEMENTS, "uncertain=or_(_S.uncertain, _S.lease_owner.is_not(None)),", "uncertain=_S.uncertain,")],
        [CLAIMS],
    ),
    Bug("a closed gate ignored", [Edit(DISPATCHER, "probing = not gate.is_open", "probing = False")], [GATE]),
    Bug(
        "a late answer that judges the gate",
        [Edit(GATE_KEEPER, "if self._queue.holds(session, one.claim)", "if one.claim")],
        [CLAIMS],
    ),
    Bug(
        "trouble that counts as a refusal",
        [Edit(DISPATCHER, "limited = answer.max_tries is not None", "limited = claim.attempts >= 4")],
        [OUTCOMES],
    ),
    Bug(
        "a send with too little lease left",
        [Edit("app/outbox/senders.py", "if self._monotonic() <= last_start:", "if last_start:")],
        [CLAIMS],
    ),
    Bug(
        "a flush that breaks leases",
        [Edit(FLUSH, ".where(stream.due_at > now, stream.lease_owner.is_(None), ", ".where(stream.due_at > now, ")],
        [FLUSHES],
    ),
    Bug(
        "outcomes dropped when the database is in trouble",
        [Edit(DISPATCHER, "            self._senders.put_back(sent)\n", "")],
        [PROCESSES],
    ),
    Bug(
        "a create without its message",
        [
            Edit(
                "app/lifecycle.py",
                "    queue.enqueue(session, media.id, Kind.CREATE, payload, user_id=media.user_id, request_id=request_id)\n",
                "",
            )
        ],
        [ENQUEUE],
    ),
    Bug(
        "a file that is not synced",
        [
            Edit(
                STORAGE,
                'might claim what the first one lost."""\n        with judged(self.path):\n            os.fsync(self.fd)\n',
                'might claim what the first one lost."""\n',
            )
        ],
        [CRASHES],
    ),
    Bug("a folder that is not synced", [Edit(STORAGE, "            os.fsync(fd)\n", "            pass\n")], [CRASHES]),
    Bug(
        "a row committed before its file is published",
        [
            Edit(
                UPLOADS,
                "        if not self.incoming.publish(self.final):\n            return None\n        committing = False\n",
                "        committing = False\n",
            ),
            Edit(
                UPLOADS,
                "                committing = True\n        except BaseException as error:\n"
                "            if committing and not isinstance(error, IntegrityError | StorageFull):\n"
                "                return self._after_unknown_commit(error)\n"
                "            self.incoming.withdraw(self.final)\n"
                "            if isinstance(error, IntegrityError):\n"
                "                self._check_taken(error)\n"
                "                return None\n"
                "            raise\n"
                "        return Receipt(self.media, duplicate=False)\n",
                "                committing = True\n        except IntegrityError:\n            return None\n"
                "        self.incoming.publish(self.final)\n"
                "        return Receipt(self.media, duplicate=False)\n",
            ),
        ],
        [CRASHES],
    ),
)


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
    ran = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env=clean,
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
        table.add_row(bug.name, verdict, f"{time.monotonic() - began:.1f}", first_failure(output))
        console.print(f"{bug.name}: {verdict}", markup=False)
    console.print(table)
    console.print(f"{caught} of {len(bugs)} caught", markup=False)
    return 2 if broken else int(caught < len(bugs))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only bugs whose names contain this")
    parser.add_argument("--list", action="store_true", help="name the bugs and end")
    arguments = parser.parse_args()
    console = Console(width=200, highlight=False)
    bugs = [bug for bug in BUGS if not arguments.names or any(name in bug.name for name in arguments.names)]
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
