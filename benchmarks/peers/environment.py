"""The peers' packages, which the service has no use for, in an environment of their own."""

import subprocess
from pathlib import Path

from tests.paths import ROOT

FOLDER = "var/.benchmark-peers"  # hidden, so that no check looks into it

_PREPARE = f". bin/_environment.sh; use_environment {FOLDER}; prepare_environment benchmarks/requirements.txt"


def python(checkout: Path = ROOT) -> Path:
    """Return the interpreter of an environment that has what benchmarks/requirements.txt says; make it where it is
    missing, by the Python that the service's environment is made by. Raises CalledProcessError, once the reason was
    printed, where that fails."""
    subprocess.run(["bash", "-euo", "pipefail", "-c", _PREPARE, "benchmarks"], cwd=checkout, check=True)
    return checkout / FOLDER / "bin" / "python"
