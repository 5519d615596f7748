"""An SQLite file some pages of which are damaged, as by a bad sector."""

import sqlite3
from contextlib import closing
from pathlib import Path

DAMAGE = b"\xaa" * 300
LOG_HEADER_BYTES, FRAME_BYTES = 32, 24 + 4096


def root_page(path: Path, name: str) -> int:
    """The page at which a table or an index begins, and which is all of it while that has few rows."""
    with closing(sqlite3.connect(path)) as connection:
        page: int = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        return page


def damage_page(path: Path, page: int, at: int = 8) -> None:
    """Write over 300 bytes of a page, from byte `at` of it on; no process has the file open."""
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + at)
        file.write(DAMAGE)


def damage_frame(log: Path, part: float) -> None:
    """Write over a frame of a database's log, the one that lies at `part` (0 to 1) of it. SQLite then leaves out that
    frame's transaction and all that follow, and says nothing."""
    content = bytearray(log.read_bytes())
    salts = content[16:24]  # of the header; frames from before the log was begun anew have others
    starts = range(LOG_HEADER_BYTES, len(content) - FRAME_BYTES + 1, FRAME_BYTES)
    frames = [start for start in starts if content[start + 8 : start + 16] == salts]
    at = frames[int(len(frames) * part)] + 100
    content[at : at + len(DAMAGE)] = DAMAGE
    log.write_bytes(content)
