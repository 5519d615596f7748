"""A fresh clone on a machine of next month: python -m tests.repository.month_later [COMMAND…]

Each COMMAND ("bin/test tests/web", by default "bin/demo" and "bin/test") is run in a clone of what is committed, with
an empty home, Debian's pip 23.0.1, no /usr/sbin on the PATH, and a package index on disk. That has every locked
package, fetched from the index that pip is set up for here, and a newer release of each, made up, with the extras and
requirements of the locked one. Ends with the exit code of the first command that fails.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from tests.paths import ROOT
from tests.repository.old_python import DEBIAN_S_PIP, unpack_wheel, write_python
from tests.repository.wheels import Index, Package

LOCKS = ("requirements.txt", "tests/requirements.txt")
NEWER = "9999.0"


def fetch_locked(folder: Path) -> list[Path]:
    """Fetch the locked wheels, as this environment's pip and its index have them."""
    arguments = [word for lock in LOCKS for word in ("-r", str(ROOT / lock))]
    exactly = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *exactly, *arguments], check=True)
    return sorted(folder.glob("*.whl"))


def newer_release(wheel: Path) -> Package:
    """Make up the next release of a package; one of another platform asks for nothing."""
    name = wheel.name.partition("-")[0]
    try:
        known = metadata(name)
    except PackageNotFoundError:
        return Package(name, NEWER)
    requires, extras = (tuple(known.get_all(field) or ()) for field in ("Requires-Dist", "Provides-Extra"))
    return Package(name, NEWER, requires, extras)


def make_index(folder: Path) -> Index:
    index = Index(folder / "index")
    wheels = folder / "wheels"
    wheels.mkdir()
    for wheel in fetch_locked(wheels):
        index.publish_wheel(wheel)
        index.publish(newer_release(wheel))
    return index


def surroundings(folder: Path, index: Index) -> dict[str, str]:
    """The environment of that machine."""
    programs, home = folder / "programs", folder / "home"
    programs.mkdir()
    home.mkdir()
    write_python(programs / "python3.14", unpack_wheel(DEBIAN_S_PIP, folder / "pip"))
    machine = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "PIP_INDEX_URL": index.url}
    return machine | {"PIP_CONFIG_FILE": os.devnull, "LANG": "C.UTF-8"}


def run_all(commands: list[str], clone: Path, environment: dict[str, str]) -> int:
    """Run the commands until one fails; return its exit code, or 0."""
    for command in commands:
        began = time.monotonic()
        code = subprocess.run(shlex.split(command), cwd=clone, env=environment, check=False).returncode
        print(f"=== {command}: exit code {code} after {time.monotonic() - began:.0f} s", flush=True)
        if code != 0:
            return code
    return 0


def main() -> int:
    """argv: the commands."""
    parser = argparse.ArgumentParser(description=re.split(r":|\n", __doc__ or "")[0])
    parser.add_argument("commands", metavar="COMMAND", nargs="*", default=["bin/demo", "bin/test"])
    commands: list[str] = parser.parse_args().commands
    with tempfile.TemporaryDirectory(prefix="month-later-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        index = make_index(folder)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
        return run_all(commands, folder / "clone", surroundings(folder, index))


if __name__ == "__main__":
    sys.exit(main())
