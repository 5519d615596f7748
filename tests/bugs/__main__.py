"""Plants every bug in this process, one on top of the other, and fails by name where one has nothing to replace."""

import importlib
import sys

import app.services  # noqa: F401 (what a bug replaces may be imported by nothing else)
from tests.bugs import BUGS

missing = []
for bug in BUGS:
    try:
        bug.plant(importlib.import_module(bug.module))
    except (AttributeError, ImportError, ValueError) as error:
        missing.append(f"{bug.name!r} cannot be planted: {error}")
print("\n".join(missing) or f"{len(BUGS)} bugs can be planted")
sys.exit(1 if missing else 0)
