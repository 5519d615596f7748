"""Read by every Python program that has this folder on PYTHONPATH: plants the bug that PLANTED_BUG names.

The tests run with it alone (`python -m tests.planted_bugs`); nothing of the application knows of it.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from tests.bugs import BUGS


class Planter:
    """An importer that hands the bug's module to the bug as soon as it is executed."""

    def __init__(self, name: str) -> None:
        [self._bug] = [bug for bug in BUGS if bug.name == name]

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module as anybody else would find it, with the bug behind it; None for every other module."""
        spec = PathFinder.find_spec(name, path, target) if name == self._bug.module else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_plant(module: ModuleType) -> None:
            execute(module)
            self._bug.plant(module)

        spec.loader.exec_module = execute_and_plant  # type: ignore[method-assign]
        return spec


if "PLANTED_BUG" in os.environ:
    sys.meta_path.insert(0, Planter(os.environ["PLANTED_BUG"]))
