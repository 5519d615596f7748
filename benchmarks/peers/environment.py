"""The peers' packages, which the service has no use for, in an environment of their own."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKED = ROOT / "benchmarks" / "requirements.txt"
ENVIRONMENT = ROOT / "var" / ".benchmark-peers"  # hidden, so that no check looks into it


def python() -> Path:
    """The interpreter of an environment that has what benchmarks/requirements.txt says; made where it is not there."""
    installed = ENVIRONMENT / "installed.txt"
    executable = ENVIRONMENT / "bin" / "python"
    if not installed.exists() or installed.read_bytes() != LOCKED.read_bytes():
        print("installing benchmarks/requirements.txt into var/.benchmark-peers", file=sys.stderr)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(LOCKED)], check=True)
        installed.write_bytes(LOCKED.read_bytes())
    return executable
