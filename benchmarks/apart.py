"""Folders of several servers on one disk that do not slow each other down.

ext4 gives no deleted file's number to a new one for minutes, and to find another passes over them one by one: what one
server deletes costs its neighbours a fifth of a millisecond for each file that they create. In a folder that is marked
as the top of a hierarchy, each new folder lies elsewhere, with numbers of its own. Where, its name decides: a folder
whose name was used before meets what the run before has deleted, so names are to be new.
"""

import fcntl
import os
import struct
from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOP_OF_HIERARCHY = 0x00020000
_LONG = "l"


def keep_apart(folder: Path) -> None:
    """Have folders that are made in this one lie apart; where the file system has no such mark, nothing happens."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(struct.calcsize(_LONG))
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        (found,) = struct.unpack(_LONG, flags)
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack(_LONG, found | _TOP_OF_HIERARCHY))
    except OSError:
        return
    finally:
        os.close(fd)
