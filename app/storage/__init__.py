"""Files of media on disk: how they come in, how they are published, and what crashes leave of them."""

from app.storage.folders import (
    COMPARE_BYTES,
    INCOMING,
    FoundFile,
    Incoming,
    Storage,
    hold,
    is_taken,
    judged,
    make_folder,
    open_regular,
    open_stored,
    remove_if_same,
    same_content,
    sync_folder,
)

__all__ = [
    "COMPARE_BYTES",
    "INCOMING",
    "FoundFile",
    "Incoming",
    "Storage",
    "hold",
    "is_taken",
    "judged",
    "make_folder",
    "open_regular",
    "open_stored",
    "remove_if_same",
    "same_content",
    "sync_folder",
]
