"""Files of media on disk: how they come in, how they are published, and what crashes leave of them."""

from app.storage.files import (
    COMPARE_BYTES,
    INCOMING,
    is_taken,
    make_folder,
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
    "is_taken",
    "lock_orphan",
    "lock_until",
    "make_folder",
    "open_regular",
    "open_stored",
    "remove_if_same",
    "same_content",
    "sync_folder",
    "translate_os_errors",
]
