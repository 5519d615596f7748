"""A forked program is as one that was started: its output, its end, its environment, and whose child it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fork_server

PROGRAM = """
import os, sys
import alembic.command
print(sys.argv[1:], os.getcwd(), os.environ.get("GIVEN"), os.getppid(), os.getsid(0) == os.getpid())
print("an error", file=sys.stderr)
print(sys.stdin.read().upper())
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where `python -m program` finds one."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.mark.parametrize("popen", [subprocess.Popen, fork_server.Popen], ids=["started", "forked"])
def test_output_end_and_surroundings_are_those_of_a_program_that_was_started(
    popen: type[subprocess.Popen[str]], folder: Path
) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "program", "an argument"]
    environment = os.environ | {"GIVEN": "here"}
    with popen(
        command,
        cwd=folder,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        output, errors = process.communicate("given", timeout=30)
    assert output == f"['an argument'] {folder} here {os.getpid()} True\nGIVEN\n"
    assert errors == "an error\n"
    assert process.returncode == 7


def test_a_signal_ends_a_forked_program_as_any_other(folder: Path) -> None:
    command = [sys.executable, "-m", "program"]
    with fork_server.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def test_a_program_that_raises_ends_as_python_does(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("raise ValueError('why')")
    ended = fork_server.run([sys.executable, "-m", "program"], cwd=tmp_path)
    assert ended.returncode == 1
    assert "ValueError: why" in ended.stderr


def test_what_the_interpreter_itself_heeds_is_left_to_a_real_start(folder: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    ended = fork_server.run([sys.executable, "-m", "program"], cwd=folder, env=environment)
    assert ended.returncode == 7


def test_a_program_that_ends_has_run_what_it_left_for_its_end_and_written_all_of_its_output(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import atexit, threading, time\n"
        "atexit.register(print, 'at the end')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('a thread'))).start()\n"
        "print('first')\n"
    )
    ended = fork_server.run([sys.executable, "-m", "program"], cwd=tmp_path)
    assert ended.stdout == "first\na thread\nat the end\n"
    assert ended.returncode == 0


def test_a_program_that_ends_with_a_message_says_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys\nsys.exit('in vain')")
    ended = fork_server.run([sys.executable, "-m", "program"], cwd=tmp_path)
    assert ended.stderr == "in vain\n"
    assert ended.returncode == 1


def test_another_folder_s_application_is_not_taken_for_the_checkout_s(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("WHERE = 'here'")
    (tmp_path / "program.py").write_text("import app\nprint(app.WHERE)")
    assert fork_server.run([sys.executable, "-m", "program"], cwd=tmp_path).stdout == "here\n"


def test_how_metrics_are_counted_is_decided_by_each_program(tmp_path: Path) -> None:
    tell = "import app.web.metrics.process; from prometheus_client import values; print(values.ValueClass.__name__)"
    command = [sys.executable, "-m", "timeit", "-n1", "-r1", tell]
    for shared, name in (({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, "MmapedValue"), ({}, "MutexValue")):
        assert fork_server.run(command, env=os.environ | shared).stdout.splitlines()[0] == name
