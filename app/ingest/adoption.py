"""Taking over a media that only the annotations service knows, where its file lies in our folders.

No create is sent for it: the other side has the record.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError

from app.database import Database, Queries
from app.database.models import Media, MediaStatus
from app.errors import MalformedUpload, MediaNotFound, UnsupportedMedia
from app.media import updates
from app.media.display_name import clean_name
from app.media.hashing import MEDIA_ID, media_id_of_file
from app.media.types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of
from app.storage import Orphan, Storage, lock_orphan, sync_folder

log = structlog.get_logger()

Look = Callable[[str, str], dict[str, Any] | None]
"""Asks the annotations service for a media's record on behalf of a user; raises Unavailable where it cannot."""

SETTLE_SECONDS = 30.0
"""How long an adoption waits for an upload of the same file that is about to commit."""

_MAX_USER = 255
_REFUSALS = (MalformedUpload, UnsupportedMedia)


class Adoption:
    """The use case. `look` is None where no annotations service is configured."""

    def __init__(
        self, database: Database, storage: Storage, look: Look | None, *, settle_seconds: float = SETTLE_SECONDS
    ) -> None:
        self._database = database
        self._storage = storage
        self._look = look
        self._settle_seconds = settle_seconds

    def ensure_known(self, media_id: str, user_id: str) -> None:
        """Return if the media is recorded here, or can be; MediaNotFound or Unavailable otherwise."""
        if not MEDIA_ID.fullmatch(media_id):
            raise MediaNotFound(f"{media_id!r} is not the id of a media.")
        if self._is_recorded(media_id):
            return
        record = self._look(media_id, user_id) if self._look else None
        if record is None:
            raise MediaNotFound(f"There is no media {media_id!r}, here or at the annotations service.")
        path = self._path_of(media_id, record)
        with lock_orphan(path, wait=self._settle_seconds) as found:  # or a sweep could remove it
            self._adopt(self._checked(media_id, record, found))

    def _path_of(self, media_id: str, record: dict[str, Any]) -> Path:
        path = Path(str(record.get("path")))
        try:
            if self._storage.contains(path):
                return path
        except OSError as error:  # a name longer than any file's
            raise _refused(media_id, str(error.strerror)) from error
        raise _refused(media_id, f"{path.name!r} is no file in our folders")

    def _checked(self, media_id: str, record: dict[str, Any], found: Orphan | None) -> dict[str, Any]:
        """The row that the record asks for, if the file found is the one that it means; the file is durable then."""
        try:
            if found is None or media_id_of_file(found.fd) != media_id:
                raise _refused(media_id, "the file does not have that id")
            extension = extension_of(found.path.name)
            check_first_bytes(extension, found.head(HEAD_BYTES))
            found.sync()
            sync_folder(found.path.parent)
            return {
                "id": media_id,
                "name": clean_name(str(record["name"])),
                "path": str(found.path),
                "media_type": MEDIA_TYPES[extension].kind,
                "media_status": _status(int(record["mediaStatus"])),
                "user_id": _user(record["userId"]),
                "size_bytes": os.fstat(found.fd).st_size,
            }
        except (LookupError, TypeError, ValueError, ArithmeticError, EOFError, OSError, *_REFUSALS) as error:
            raise _refused(media_id, f"{type(error).__name__}: {error}") from error

    def _adopt(self, row: dict[str, Any]) -> None:
        try:
            updates.adopt(self._database, row)
        except IntegrityError as error:
            if not self._is_recorded(row["id"]):
                raise _refused(row["id"], "another media has its path") from error
            log.info("adopted_already", media_id=row["id"])
        else:
            log.info("adopted", media_id=row["id"])

    def _is_recorded(self, media_id: str) -> bool:
        return Queries(self._database).fetch(lambda session: session.get(Media, media_id)) is not None


def _status(theirs: int) -> MediaStatus:
    if theirs == MediaStatus.AI_PROCESSING:
        return MediaStatus.ERROR  # whoever ran it is not known here, and no run of ours would ever end that status
    if theirs in set(MediaStatus):
        return MediaStatus(theirs)
    return MediaStatus.AI_PROCESSED  # 4 and 5 belong to other services, and come after a run has ended


def _user(theirs: Any) -> str:
    if isinstance(theirs, str) and theirs.isprintable() and 0 < len(theirs) <= _MAX_USER:
        return theirs
    raise ValueError(f"userId is not a text of at most {_MAX_USER} printable characters")


def _refused(media_id: str, reason: str) -> MediaNotFound:
    log.warning("adoption_refused", media_id=media_id, reason=reason)
    return MediaNotFound(
        f"Media {media_id} is known to the annotations service, but its file is not in this service's folders."
    )
