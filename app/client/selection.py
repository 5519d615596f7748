"""Selects the files to upload: those named, and those with a known extension in named folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import UnsupportedMedia
from app.media.types import extension_of


def select_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the files in the given order, each once, and the number of files in folders that were skipped.

    A folder's files are sorted by name. Hidden files and folders are skipped, and links to folders are not followed. A
    named file is selected whatever its extension, so that it is reported. Raises OSError if a folder cannot be listed.
    """
    files: dict[Path, None] = {}
    skipped = 0
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        for file in _files_below(path):
            if _has_known_extension(file):
                files[file] = None
            else:
                skipped += 1
    return list(files), skipped


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _has_known_extension(path: Path) -> bool:
    try:
        extension_of(path.name)
    except UnsupportedMedia:
        return False
    return True
