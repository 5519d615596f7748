"""An upload in parts in a process of its own, whose calls are traced: `FOLDER URL FILE`, which is a picture.

Waits for the end of its standard input, then says the upload's id, and each offset once it is acknowledged, with one
system call each.
"""

import os
import sys
from pathlib import Path

from app.database import Database
from tests.conftest import Clock
from tests.ingest.intake import open_intake
from tests.resumable.test_uploads import World

PART = 2500


def main(folder: str, url: str, file: str) -> None:
    """Send the file's bytes, PART of them at a time."""
    sys.stdin.read()
    content = Path(file).read_bytes()
    world = World(open_intake(Path(folder), Database(url)), Clock())
    upload = world.new(len(content))
    os.write(1, f"upload {upload}\n".encode())
    for begin in range(0, len(content), PART):
        received = world.append(upload, begin, content[begin : begin + PART]).received
        os.write(1, f"acknowledged {received}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
