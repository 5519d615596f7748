"""What is its owner's alone, whatever the umask says: the database with its log, and files on their way in."""

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> None:
    """Take away what the group and others may do there.

    Nothing happens where there is no such file, or where it belongs to another user, whose affair that is.
    """
    try:
        there = path.stat()
        if there.st_uid == os.geteuid() and there.st_mode & _OTHERS:
            path.chmod(stat.S_IMODE(there.st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return


def give_owner_rights_of(path: Path, to: Path) -> None:
    """Let the owner of a file do there what the owner of `path` may do; nothing happens where either is not there."""
    try:
        wanted, there = path.stat().st_mode & stat.S_IRWXU, to.stat()
        if there.st_uid == os.geteuid() and there.st_mode & wanted != wanted:
            to.chmod(stat.S_IMODE(there.st_mode) | wanted)
    except FileNotFoundError:
        return
