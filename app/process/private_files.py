"""Makes files accessible to their owner only, regardless of the umask: the database, its log and incoming files."""

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> None:
    """Remove the permissions of group and others; do nothing if the file is missing or belongs to another user."""
    try:
        there = path.stat()
        if there.st_uid == os.geteuid() and there.st_mode & _OTHERS:
            path.chmod(stat.S_IMODE(there.st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return


def give_owner_rights_of(path: Path, to: Path) -> None:
    """Give the owner of `to` the permissions that the owner of `path` has; do nothing if either file is missing."""
    try:
        wanted, there = path.stat().st_mode & stat.S_IRWXU, to.stat()
        if there.st_uid == os.geteuid() and there.st_mode & wanted != wanted:
            to.chmod(stat.S_IMODE(there.st_mode) | wanted)
    except FileNotFoundError:
        return
