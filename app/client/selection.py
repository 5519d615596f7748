"""Which files are meant: those named, and those with a known extension below folders that are named."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import UnsupportedMedia
from app.media.types import extension_of


def selected(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Files in the order given, each once, a folder's by name; and how many in folders were passed over.

    Hidden files and folders are no part of a folder's files, and links to folders are not followed. A file that is
    named itself is taken whatever its extension, so that it is reported and not passed over. Raises OSError where a
    folder cannot be listed.
    """
    files: dict[Path, None] = {}
    others = 0
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        for file in _below(path):
            if _has_known_extension(file):
                files[file] = None
            else:
                others += 1
    return list(files), others


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _stop(error: OSError) -> None:
    raise error


def _has_known_extension(path: Path) -> bool:
    try:
        extension_of(path.name)
    except UnsupportedMedia:
        return False
    return True
