"""The commands on a machine of next month: its pip is old, and everything has newer releases than the lock files name.

The machine's Python is this one with a pip of the test's choice; the packages and their index are the test's own, so
nothing is asked for over a network.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.repository.old_python import DEBIAN_S_PIP, OWN_PIP, unpack_wheel, write_python
from tests.repository.wheels import Index, Package

pytestmark = pytest.mark.slow

NEEDS_DEBIAN_S_PIP = pytest.mark.skipif(
    not DEBIAN_S_PIP.is_file(), reason="pip 23.0.1 is not installed (Debian 12: apt install python3-pip-whl)"
)
PREPARE_PEERS = """
import pathlib
from benchmarks.peers import environment
environment.python(pathlib.Path.cwd())
"""
PIPS = [
    pytest.param(DEBIAN_S_PIP, marks=NEEDS_DEBIAN_S_PIP, id="pip 23.0.1"),
    pytest.param(OWN_PIP, id="own pip", marks=pytest.mark.long),
]

TOML = Package("tomlish", "1.0")
CORE = Package("core", "1.0", requires=("tomlish>=1; extra == 'toml'",), extras=("toml",))
ALEMBIC = Package("alembic", "1.0", requires=("core[toml]>=1",), scripts=("alembic",))
GUNICORN = Package("gunicorn", "1.0", scripts=("gunicorn",), body="import core; print('serves with', core.VERSION)")
PYTEST = Package("pytest", "1.0", requires=("core[toml]>=1",), body="import core; print('tests with', core.VERSION)")
UVICORN = Package("uvicorn", "1.0", requires=("core[toml]>=1",), body="import core; print('peer with', core.VERSION)")

SERVICE, TESTS = (TOML, CORE, ALEMBIC, GUNICORN), (PYTEST,)


class Machine:
    """A checkout with the real commands, made-up lock files and a Python of its own, beside an index; `pip` is the
    unpacked wheel of the pip that this Python has."""

    def __init__(self, folder: Path, pip: Path) -> None:
        self.checkout = folder / "a checkout"
        shutil.copytree(ROOT / "bin", self.checkout / "bin")
        for package in ("app/demo", "tests", "benchmarks"):
            (self.checkout / package).mkdir(parents=True)
        (self.checkout / "app/demo/__main__.py").write_text("import core\nprint('shows with', core.VERSION)\n")
        (self.checkout / "app/wait_for_database.py").touch()
        self.index = Index(folder / "index")
        programs = folder / "programs"
        programs.mkdir()
        write_python(programs / "python3.14", pip)
        self.environment = {
            "HOME": str(folder / "home"),
            "PATH": f"{programs}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "PIP_INDEX_URL": self.index.url,
            "PIP_CONFIG_FILE": os.devnull,
        }

    @property
    def python(self) -> Path:
        return self.checkout / ".venv" / "bin" / "python"

    def lock(self, name: str, *packages: Package) -> None:
        (self.checkout / name).write_text(self.index.lock(*packages))

    def publish_and_lock(self) -> None:
        """Publish one release of everything, and lock it."""
        self.index.publish(*SERVICE, *TESTS, UVICORN)
        self.lock("requirements.txt", *SERVICE)
        self.lock("tests/requirements.txt", *TESTS)
        self.lock("benchmarks/requirements.txt", TOML, CORE, UVICORN)

    def publish_newer(self) -> None:
        """Publish a newer release of everything that is locked, with what it asks for."""
        for package in (*SERVICE, *TESTS, UVICORN):
            self.index.publish(Package(package.name, "2.0", package.requires, package.extras, package.scripts))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


Unpack = Callable[[Path], Path]


@pytest.fixture(scope="module")
def unpack(tmp_path_factory: pytest.TempPathFactory) -> Unpack:
    """Unpacks a wheel, once."""
    folder = tmp_path_factory.mktemp("pips")
    return cache(lambda wheel: unpack_wheel(wheel, folder / wheel.stem))


@pytest.fixture
def machine(tmp_path: Path, unpack: Unpack) -> Machine:
    machine = Machine(tmp_path, unpack(OWN_PIP))
    machine.publish_and_lock()
    return machine


@pytest.mark.parametrize("pip", PIPS)
def test_every_command_installs_what_is_locked_whatever_was_published_since(
    pip: Path, tmp_path: Path, unpack: Unpack
) -> None:
    machine = Machine(tmp_path, unpack(pip))
    machine.publish_and_lock()
    machine.publish_newer()
    for command, says in [
        (["bin/serve"], "serves with 1.0\n"),
        (["bin/demo"], "shows with 1.0\n"),
        (["bin/test", "--version"], "tests with 1.0\n"),
        ([sys.executable, "-c", PREPARE_PEERS], ""),
        (["var/.benchmark-peers/bin/python", "-m", "uvicorn"], "peer with 1.0\n"),
    ]:
        ended = machine.run(*command)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == says, ended.stderr
    if pip == DEBIAN_S_PIP:  # on this index a pip of that age ends where it resolves
        lock = ("--require-hashes", "--target", "elsewhere", "-r", "requirements.txt")
        resolving = machine.run(str(machine.python), "-m", "pip", "install", *lock)
        assert resolving.returncode != 0
        assert "core[toml]>=1" in resolving.stderr


@pytest.mark.long
def test_a_lock_file_that_lacks_a_package_ends_the_command_with_its_name_each_time_until_it_is_complete(
    machine: Machine,
) -> None:
    machine.lock("requirements.txt", TOML, ALEMBIC, GUNICORN)
    for _time in range(2):
        refused = machine.run("bin/serve")
        assert refused.returncode == 1
        assert refused.stdout == ""
        lines = refused.stderr.splitlines()
        assert any("alembic" in line and "core" in line for line in lines), lines
        assert lines[-1].startswith("serve: requirements.txt")
        assert "pip check" in lines[-1]
    machine.lock("requirements.txt", *SERVICE)
    assert machine.run("bin/serve").stdout == "serves with 1.0\n"


@pytest.mark.long
def test_what_an_earlier_lock_file_left_does_not_spoil_the_next_one(machine: Machine) -> None:
    left = Package("left", "1.0", requires=("core<2",))
    newer = Package("core", "2.0", requires=CORE.requires, extras=CORE.extras)
    machine.index.publish(left, newer)
    machine.lock("requirements.txt", *SERVICE, left)
    assert machine.run("bin/serve").stdout == "serves with 1.0\n"
    machine.lock("requirements.txt", TOML, newer, ALEMBIC, GUNICORN)
    updated = machine.run("bin/serve")
    assert updated.stdout == "serves with 2.0\n", updated.stderr
    assert machine.run(str(machine.python), "-c", "import left").returncode != 0
