"""Stored media files: receiving, publishing, and the orphans that crashes leave."""

from app.storage.files import (
    COMPARE_BYTES,
    INCOMING,
    make_folder,
    name_exists,
    open_regular,
    open_stored,
    remove_if_same,
    same_content,
    sync_folder,
)
from app.storage.folders import Storage
from app.storage.incoming import Incoming
from app.storage.orphans import Orphan, lock_orphan, lock_until
from app.storage.os_errors import translate_os_errors

__all__ = [
    "COMPARE_BYTES",
    "INCOMING",
    "Incoming",
    "Orphan",
    "Storage",
    "lock_orphan",
    "lock_until",
    "make_folder",
    "name_exists",
    "open_regular",
    "open_stored",
    "remove_if_same",
    "same_content",
    "sync_folder",
    "translate_os_errors",
]
