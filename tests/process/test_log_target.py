"""A log that cannot be written: lines are lost and counted, without other effects."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.process.log_target import LogTarget
from tests.long import later
from tests.paths import ROOT

pytestmark = pytest.mark.slow


def test_a_full_disk_costs_the_line_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    target, told = LogTarget(), list[int]()
    target.on_lost = lambda: told.append(1)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        target.write("lost")
        target.write("lost as well")
    assert target.lost == 2
    assert len(told) == 2


def test_a_stream_that_is_closed_or_none_costs_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    target = LogTarget()
    with Path(os.devnull).open("w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    target.write("lost")
    monkeypatch.setattr(sys, "stderr", None)
    target.write("lost")
    assert target.lost == 2


def test_a_counter_that_breaks_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = LogTarget()
    target.on_lost = lambda: 1 / 0  # type: ignore[assignment]
    monkeypatch.setattr(sys, "stderr", None)
    target.write("lost")
    assert target.lost == 1


def test_a_pipe_that_nobody_reads_is_waited_for_once_and_goes_on_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = LogTarget()
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb")) as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        began = time.monotonic()
        for _ in range(100):
            target.write(10_000 * "x")
        assert time.monotonic() - began < 2
        assert target.lost > 50
        lost = target.lost
        os.read(reader.fileno(), 1 << 20)
        target.write("read again")
        assert target.lost == lost
        assert os.read(reader.fileno(), 1 << 20).endswith(b"read again\n")


def test_a_pipe_whose_reader_has_gone_costs_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    target = LogTarget()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        target.write("lost")
    assert target.lost == 1


def run(script: str, errors: Path) -> int:
    with errors.open("ab") as file:
        return subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=file, timeout=30, check=False).returncode


def test_a_file_that_was_renamed_is_opened_anew(tmp_path: Path) -> None:
    log, script = (
        tmp_path / "log",
        (
            "import os; from app.process.log_target import TARGET; TARGET.note_path(); TARGET.write('before');"
            f"os.rename({str(tmp_path / 'log')!r}, {str(tmp_path / 'log.1')!r});"
            "TARGET.write('still there'); TARGET.reopen(); TARGET.write('after')"
        ),
    )
    assert run(script, log) == 0
    assert (tmp_path / "log.1").read_text() == "before\nstill there\n"
    assert log.read_text() == "after\n"


@pytest.mark.parametrize("body", later(["return"], "raise ValueError('on purpose')", "raise SystemExit"))
def test_a_thread_that_ends_unasked_ends_its_process_and_says_so(body: str, tmp_path: Path) -> None:
    script = (
        "import threading, time; from app.process import logs; from app.settings import LogSettings\n"
        "from app.process.threads import supervised; logs.configure(LogSettings())\n"
        f"def work():\n    {body}\n"
        "supervised(work, 'run-worker-0', threading.Event()).start(); time.sleep(20)"
    )
    assert run(script, tmp_path / "log") == -signal.SIGTERM
    assert "run-worker-0" in (tmp_path / "log").read_text()


@pytest.mark.long
def test_a_thread_that_was_asked_to_end_may_end(tmp_path: Path) -> None:
    script = (
        "import threading; from app.process.threads import supervised; asked = threading.Event(); asked.set()\n"
        "thread = supervised(lambda: None, 'run-worker-0', asked); thread.start(); thread.join()"
    )
    assert run(script, tmp_path / "log") == 0
