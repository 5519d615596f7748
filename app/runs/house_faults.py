"""House faults: why a run cannot reach its file or its detector although its media item may be sound.

A run that meets one waits, with the fault's kind and reason in its row, and is not reported as Error. A fault of one
file (its folder, the file itself) leaves other runs alone. A fault of all detection (the detector, its model, storing
results) trips the process's `DetectionBreaker`.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.errors import DetectorFailed, HouseFault, SettingsError


class FaultKind(StrEnum):
    """What does not work."""

    MISSING = "missing"  # a stored file is missing from its folder
    FILE = "file"  # a stored file cannot be read, or is not the one that was stored
    FOLDER = "folder"  # a media folder is missing, or is not the one that belongs to the database
    DETECTOR = "detector"  # the detector does not start, or fails with every media item
    MODEL = "model"  # the model or its labels cannot be loaded
    RESULTS = "results"  # the database cannot store results


OF_ONE_FILE: Final = (FaultKind.MISSING, FaultKind.FILE, FaultKind.FOLDER)
OF_ALL: Final = (FaultKind.DETECTOR, FaultKind.MODEL, FaultKind.RESULTS)


def file_fault(path: Path, error: Exception, folder_reason: Callable[[Path], str | None]) -> HouseFault:
    """Return the fault that kept a stored file from being opened or read.

    `folder_reason` returns why a media folder is unusable, or None.
    """
    reason = folder_reason(path.parent)
    if reason:
        return HouseFault(FaultKind.FOLDER, reason)
    if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
        return HouseFault(
            FaultKind.MISSING,
            f"The stored file {path.name} is missing. Send it again, or restore it; `flask media verify` lists all.",
        )
    return HouseFault(FaultKind.FILE, str(error))


def detector_fault(error: DetectorFailed | SettingsError) -> HouseFault:
    """Return the fault of a detector that failed before it looked at a media item."""
    return HouseFault(FaultKind.MODEL if isinstance(error, SettingsError) else FaultKind.DETECTOR, str(error))
