"""A Python whose environments get another pip than its own, as on a machine that was set up years ago."""

import ensurepip
import sys
import zipfile
from pathlib import Path

DEBIAN_S_PIP = Path("/usr/share/python-wheels/pip-23.0.1-py3-none-any.whl")
"""Debian 12's, from its package python3-pip-whl."""

OWN_PIP = next(
    wheel
    for folder in (Path(ensurepip.__file__).parent / "_bundled", DEBIAN_S_PIP.parent)
    for wheel in folder.glob("pip-*.whl")
)
"""The one that this Python gives its environments."""

_PROGRAM = """#!/bin/bash
if [ "$1 $2" != "-m venv" ]; then
    exec '{real}' "$@"
fi
'{real}' -m venv --without-pip "$3" && ln -s '{pip}'/* "$3"/lib/python3*/site-packages
"""


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel into a folder, which is made, and return that."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def write_python(program: Path, pip: Path) -> None:
    """Write a program that is this Python but for the pip of its environments: the one unpacked in the folder `pip`."""
    program.write_text(_PROGRAM.format(real=Path(sys.base_prefix) / "bin" / "python3", pip=pip))
    program.chmod(0o755)
