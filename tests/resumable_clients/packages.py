"""The clients of tus that run in Node or in a browser, as package-lock.json beside this file pins them."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALL_SECONDS = 240
_INSTALLED = HERE / "node_modules" / ".package-lock.json"


def installed_node() -> str:
    """Return the path of Node, with the packages installed. Skips the test where this machine has no Node or npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node here, so its clients of tus were not tried: apt-get install nodejs npm")
    lock_file = HERE / "package-lock.json"
    with lock_file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests of another process may want them at the same time
        if not _INSTALLED.exists() or _INSTALLED.stat().st_mtime < lock_file.stat().st_mtime:
            subprocess.run([npm, "ci"], cwd=HERE, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return node


def bundle(source: Path, folder: Path) -> None:
    """Make `folder`/page.js, a module for browsers, of a module that imports packages; as `installed_node` does."""
    installed_node()
    program = HERE / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--format=esm", "--log-level=error", f"--outfile={folder / 'page.js'}"]
    subprocess.run([program, source, *options], cwd=HERE, check=True, timeout=60)
