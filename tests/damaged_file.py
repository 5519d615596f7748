"""An SQLite file some pages of which are damaged, as by a bad sector."""

import sqlite3
from contextlib import closing
from pathlib import Path

DAMAGE = b"\xaa" * 300


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
