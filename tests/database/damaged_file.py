"""Damages pages of an SQLite file, as a bad sector does."""

import sqlite3
from contextlib import closing
from pathlib import Path

DAMAGE = b"\xaa" * 300
LOG_HEADER_BYTES, FRAME_BYTES = 32, 24 + 4096


def root_page(path: Path, name: str) -> int:
    """Return the root page of a table or an index, which is its only page while it has few rows."""
    with closing(sqlite3.connect(path)) as connection:
        page: int = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        return page


def damage_page(path: Path, page: int, at: int = 8) -> None:
    """Overwrite 300 bytes of a page from byte `at` on, while no process has the file open."""
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + at)
        file.write(DAMAGE)


def damage_frame(log: Path, part: float) -> None:
    """Overwrite the frame at `part` (0 to 1) of a database's log. SQLite then ignores that frame's transaction and all
    later ones without an error."""
    content = bytearray(log.read_bytes())
    salts = content[16:24]  # of the header; frames from before the log was begun anew have others
    starts = range(LOG_HEADER_BYTES, len(content) - FRAME_BYTES + 1, FRAME_BYTES)
    frames = [start for start in starts if content[start + 8 : start + 16] == salts]
    at = frames[int(len(frames) * part)] + 100
    content[at : at + len(DAMAGE)] = DAMAGE
    log.write_bytes(content)
