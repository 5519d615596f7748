"""Landlock: an irrevocable allow-list of the files that this process may open and the processes that it may reach.

It binds the calling thread and the threads started later, so the process must have a single thread. Files that are
already open stay open; whether a path exists and its size can still be queried.
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
"""The number of file access rights by Landlock version; each right is one bit, starting at the lowest."""
_TCP = 0b11
"""Bind and connect; from version 4 on."""
_SCOPES = 0b11
"""Connect to abstract Unix sockets and signal other processes; from version 6 on."""


def version() -> int:
    """Return the version of Landlock in this kernel; 0 if it is missing or turned off."""
    if not is_linux():
        return 0
    try:
        return syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    except OSError:
        return 0


def apply(readable: Iterable[Path] | None) -> None:
    """Restrict this thread to reading the files and folders of `readable`; missing paths are skipped.

    With None file access is not restricted, only TCP, abstract Unix sockets and signals. The process must have given up
    its privileges before. Raises OSError.
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
    fields = [files, *([_TCP] if available >= 4 else []), *([_SCOPES] if available >= 6 else [])]
    return struct.pack(f"={len(fields)}Q", *fields)


def _allow_to_read(ruleset: int, path: Path) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # a path that cannot be opened now needs no rule
        return
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = struct.pack("=Qi", rights, fd)
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    finally:
        os.close(fd)
