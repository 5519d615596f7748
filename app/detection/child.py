"""Where a detector process begins: a script, run by its path in a Python that heeds neither variables nor folders.

    python -I -S child.py FD PATH…

FD is its end of the channel, PATH what its parent has on `sys.path`. The packages whose import would wire up the whole
service are entered without running them: nothing of it has a place here, and their import takes longer than all else.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

APP = Path(__file__).parents[1]
BARE = {"app": APP, "app.settings": APP / "settings"}


def main() -> None:
    """Serve until the other end of the channel is closed."""
    channel, *sys.path[:] = sys.argv[1:]
    for name, folder in BARE.items():
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    importlib.import_module("app.detection.worker").serve(int(channel))


if __name__ == "__main__":
    main()
