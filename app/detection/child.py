"""The script that a detector process starts with, run by its path in an isolated Python.

    python -I -S child.py FD PATH…

FD is this process's end of the channel; each PATH is an entry of the parent's `sys.path`. The packages `app` and
`app.settings` are registered without running their `__init__`, which would import the whole service: the detector needs
none of it, and importing it takes longer than everything else here.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

APP = Path(__file__).parents[1]
NAMESPACE_PACKAGES = {"app": APP, "app.settings": APP / "settings"}


def main() -> None:
    """Serve requests until the parent closes its end of the channel."""
    channel, *sys.path[:] = sys.argv[1:]
    for name, folder in NAMESPACE_PACKAGES.items():
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    importlib.import_module("app.detection.worker").serve(int(channel))


if __name__ == "__main__":
    main()
