"""Uploads without HTTP: generated pictures, crafted collisions, and the services that ingest files."""

import os
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from app.database import Database
from app.database.models import Media, OutboxMessage
from app.ingest import Ingest, IngestResult, Upload
from app.media.hashing import media_id_of_bytes
from app.outbox.queue import OutboxQueue
from app.storage import INCOMING, Storage
from app.storage.sweep import Sweep

TOGETHER = 4
"""Uploads at once in tests of what they share."""

UNSAMPLED = 1500
"""An offset that the id of a file of 8000 bytes does not look at."""


def picture(seed: object, size: int = 8000) -> bytes:
    """Return bytes that pass for a JPEG until they are decoded."""
    return b"\xff\xd8\xff" + random.Random(str(seed)).randbytes(size - 3)


def twin_of(content: bytes) -> bytes:
    """Return other content with the same id: one byte outside the sample differs."""
    twin = bytearray(content)
    twin[UNSAMPLED] ^= 1
    assert media_id_of_bytes(bytes(twin)) == media_id_of_bytes(content)
    return bytes(twin)


@dataclass(frozen=True)
class Intake:
    """Everything that ingests files, with one folder and one database."""

    folder: Path
    database: Database
    storage: Storage
    ingest: Ingest
    sweep: Sweep

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def incoming(self) -> Path:
        return self.images / INCOMING

    def send(self, content: bytes | Iterable[bytes], name: str = "photo.jpg", user: str = "ada") -> IngestResult:
        chunks = [content] if isinstance(content, bytes) else content
        return self.ingest.run(Upload(name, user, chunks))

    def final(self, content: bytes, extension: str = "jpg") -> Path:
        """Return the final path of that content."""
        return self.images / f"{media_id_of_bytes(content)}.{extension}"

    def orphan(self, content: bytes, extension: str = "jpg", *, proof: bool = True) -> Path:
        """Create a final file without a row, as a crash between link and commit leaves it; or without proof, a foreign
        one.
        """
        final = self.final(content, extension)
        final.write_bytes(content)
        if proof:
            os.link(final, self.incoming / f"{random.randbytes(16).hex()}.part")
        return final

    def stored(self) -> set[str]:
        """Return the names of all published files."""
        return {path.name for path in self.images.iterdir() if path.is_file()}

    def leftovers(self) -> list[Path]:
        return list(self.incoming.iterdir())

    def rows(self) -> list[Media]:
        with self.database.read_transaction() as session:
            return list(session.scalars(select(Media).order_by(Media.id)))

    def creates(self) -> int:
        """Return how many create messages were queued."""
        with self.database.read_transaction() as session:
            return session.scalars(select(func.count()).where(OutboxMessage.kind == "create")).one()

    def assert_sound(self) -> None:
        """Check that each row has its file with the row's id and size, and exactly one create message."""
        rows = self.rows()
        for media in rows:
            content = Path(media.path).read_bytes()
            assert media_id_of_bytes(content) == media.id
            assert len(content) == media.size_bytes
        assert self.creates() == len(rows)


def open_intake(folder: Path, database: Database, *, lock_wait_seconds: float = 5.0) -> Intake:
    """Return services over `folder`, which is created if it is missing."""
    storage = Storage({"Image": folder / "images", "Video": folder / "videos"})
    storage.prepare()
    queue = OutboxQueue(database.now)
    ingest = Ingest(database, queue, storage, lock_wait_seconds=lock_wait_seconds)
    return Intake(folder, database, storage, ingest, Sweep(database, queue, storage))


def is_temporary(name: str) -> bool:
    """Return whether it is the name of a file being received."""
    return re.fullmatch(r"[0-9a-f]{32}(-[0-9]+)?\.part", name) is not None
