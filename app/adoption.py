"""Taking over a media that only the annotations service knows, where its file lies in our folders.

No create is sent for it: the other side has the record. This module begins transactions.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.display_name import clean_name
from app.errors import DetectionsError, MediaNotFound
from app.media_hash import media_id_of_file
from app.media_types import MEDIA_TYPES, extension_of
from app.models import Media, MediaStatus
from app.storage import Storage

log = structlog.get_logger()

Look = Callable[[str, str], dict[str, Any] | None]
"""Asks the annotations service for a media's record on behalf of a user; raises Unavailable where it cannot."""

_OURS = {int(status) for status in MediaStatus}


class Adoption:
    """The use case. `look` is None where no annotations service is configured."""

    def __init__(self, database: Database, storage: Storage, look: Look | None) -> None:
        self._database = database
        self._storage = storage
        self._look = look

    def ensure_known(self, media_id: str, user_id: str) -> None:
        """Return if the media is recorded here, or can be; MediaNotFound or Unavailable otherwise."""
        with self._database.reading() as session:
            if session.get(Media, media_id) is not None:
                return
        record = self._look(media_id, user_id) if self._look else None
        if record is None:
            raise MediaNotFound(f"There is no media {media_id!r}, here or at the annotations service.")
        self._adopt(self._checked(media_id, record))

    def _checked(self, media_id: str, record: dict[str, Any]) -> dict[str, Any]:
        """The row that the record asks for, if its file is really here."""
        try:
            path = Path(record["path"])
            size_bytes = self._size_if_it_is(media_id, path)
            status = int(record["mediaStatus"])
            return {
                "id": media_id,
                "name": clean_name(str(record["name"])),
                "path": str(path),
                "media_type": MEDIA_TYPES[extension_of(path.name)].kind,
                # 4 and 5 belong to other services, and come after a run has ended.
                "media_status": status if status in _OURS else MediaStatus.AI_PROCESSED,
                "user_id": str(record["userId"]),
                "size_bytes": size_bytes,
            }
        except (KeyError, TypeError, ValueError, OSError, DetectionsError) as error:
            log.warning("adoption_refused", media_id=media_id, reason=f"{type(error).__name__}: {error}")
            raise MediaNotFound(
                f"Media {media_id} is known to the annotations service, but its file is not in this service's folders."
            ) from error

    def _size_if_it_is(self, media_id: str, path: Path) -> int:
        if not self._storage.contains(path):
            raise MediaNotFound(f"{path.name} is not in our folders")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if media_id_of_file(fd) != media_id:
                raise MediaNotFound(f"{path.name} does not have that id")
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def _adopt(self, row: dict[str, Any]) -> None:
        try:
            with self._database.writing() as session:
                created_at = session.scalars(select(self._database.now)).one()
                session.execute(insert(Media).values(**row, created_at=created_at))
        except IntegrityError:
            log.info("adopted_already", media_id=row["id"])
        else:
            log.info("adopted", media_id=row["id"])
