"""Which files this process may open, and whom it may reach (Landlock): an allow-list that cannot be widened again.

Only the thread that applies it is bound by it, and those that it starts later: it is for a process that has one. Files
that are open already stay open; whether a file exists, and how large it is, can still be asked.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from app.detection.sandbox.kernel import is_linux, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_GET_VERSION = 1
_PATH_BENEATH = 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights there are to files, each a bit from the lowest on, from which version on."""
_TCP = 0b11
"""To bind and to connect, from version 4 on."""
_OUTSIDE = 0b11
"""To connect to abstract Unix sockets and to signal processes outside, from version 6 on."""


def version() -> int:
    """The version of Landlock that this kernel has; 0 where it has none, or where it is turned off."""
    if not is_linux():
        return 0
    try:
        return syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    except OSError:
        return 0


def apply(readable: Iterable[Path] | None) -> None:
    """Leave this thread the files and folders of `readable`, to read; a path that is not there is passed over.

    With None files are left as they are, and what lies outside (TCP, abstract Unix sockets, signals) is refused alone.
    The process must have given up its privileges before. Raises OSError.
    """
    attributes = _attributes(version(), has_files=readable is not None)
    ruleset = syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)
    try:
        for path in readable or ():
            _allow_to_read(ruleset, path)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _attributes(available: int, *, has_files: bool) -> bytes:
    rights = max(count for since, count in _FILE_RIGHTS.items() if since <= available)
    files = (1 << rights) - 1 if has_files else 0
    fields = [files, *([_TCP] if available >= 4 else []), *([_OUTSIDE] if available >= 6 else [])]
    return struct.pack(f"={len(fields)}Q", *fields)


def _allow_to_read(ruleset: int, path: Path) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # nothing that could be read later either
        return
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = struct.pack("=Qi", rights, fd)
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    finally:
        os.close(fd)
