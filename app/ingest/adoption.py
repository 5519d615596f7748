"""Adopts a media item that only the annotations service knows, if its file lies in this service's folders.

No create message is sent, because the annotations service already has the record.
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

FetchRecord = Callable[[str, str], dict[str, Any] | None]
"""Fetches a media record from the annotations service on behalf of a user. Arguments: media id, user id. Raises
Unavailable.
"""

LOCK_WAIT_SECONDS = 30.0
"""How long an adoption waits for an upload of the same file that is about to commit."""

_MAX_USER = 255
_REFUSALS = (MalformedUpload, UnsupportedMedia)


class Adoption:
    """The use case. `fetch_record` is None if no annotations service is configured."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        fetch_record: FetchRecord | None,
        *,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        self._database = database
        self._storage = storage
        self._fetch_record = fetch_record
        self._lock_wait_seconds = lock_wait_seconds

    def ensure_known(self, media_id: str, user_id: str) -> None:
        """Return if the media item is recorded here or was adopted.

        Raises MediaNotFound or Unavailable.
        """
        if not MEDIA_ID.fullmatch(media_id):
            raise MediaNotFound(f"{media_id!r} is not a media id.")
        if self._is_recorded(media_id):
            return
        record = self._fetch_record(media_id, user_id) if self._fetch_record else None
        if record is None:
            raise MediaNotFound(f"No media item {media_id!r} exists here or at the annotations service.")
        path = self._path_of(media_id, record)
        with lock_orphan(path, wait=self._lock_wait_seconds) as orphan:  # the lock keeps a sweep from removing it
            self._adopt(self._check_and_sync(media_id, record, orphan))

    def _path_of(self, media_id: str, record: dict[str, Any]) -> Path:
        path = Path(str(record.get("path")))
        try:
            if self._storage.contains(path):
                return path
        except OSError as error:  # the name is too long for a file
            raise _not_found(media_id, str(error.strerror)) from error
        raise _not_found(media_id, f"{path.name!r} is not a file in the media folders")

    def _check_and_sync(self, media_id: str, record: dict[str, Any], orphan: Orphan | None) -> dict[str, Any]:
        """Return the row for the record, after checking that the file is the one it describes and making it durable."""
        try:
            if orphan is None or media_id_of_file(orphan.fd) != media_id:
                raise _not_found(media_id, "the file does not have that id")
            extension = extension_of(orphan.path.name)
            check_first_bytes(extension, orphan.head(HEAD_BYTES))
            orphan.sync()
            sync_folder(orphan.path.parent)
            return {
                "id": media_id,
                "name": clean_name(str(record["name"])),
                "path": str(orphan.path),
                "media_type": MEDIA_TYPES[extension].kind,
                "media_status": _status(int(record["mediaStatus"])),
                "user_id": _user(record["userId"]),
                "size_bytes": os.fstat(orphan.fd).st_size,
            }
        except (LookupError, TypeError, ValueError, ArithmeticError, EOFError, OSError, *_REFUSALS) as error:
            raise _not_found(media_id, f"{type(error).__name__}: {error}") from error

    def _adopt(self, row: dict[str, Any]) -> None:
        try:
            updates.adopt(self._database, row)
        except IntegrityError as error:
            if not self._is_recorded(row["id"]):
                raise _not_found(row["id"], "another media item has its path") from error
            log.info("adopted_already", media_id=row["id"])
        else:
            log.info("adopted", media_id=row["id"])

    def _is_recorded(self, media_id: str) -> bool:
        return Queries(self._database).fetch(lambda session: session.get(Media, media_id)) is not None


def _status(value: int) -> MediaStatus:
    if value == MediaStatus.AI_PROCESSING:
        return MediaStatus.ERROR  # no run of this service would ever end that status
    if value in set(MediaStatus):
        return MediaStatus(value)
    return MediaStatus.AI_PROCESSED  # 4 and 5 belong to other services and follow a finished run


def _user(value: Any) -> str:
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_USER:
        return value
    raise ValueError(f"userId is not a string of at most {_MAX_USER} printable characters")


def _not_found(media_id: str, reason: str) -> MediaNotFound:
    log.warning("adoption_refused", media_id=media_id, reason=reason)
    return MediaNotFound(
        f"The annotations service knows media {media_id}, but its file is not in this service's folders."
    )
