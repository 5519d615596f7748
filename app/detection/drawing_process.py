"""Boxes drawn on a media's frame, in a process of its own: this side imports no decoder, and a media can do it no harm.

What comes back through the pipe is a reason as plain text, empty where all went well.
"""

import multiprocessing
import pkgutil
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from app import processors
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.results import DetectedObject
from app.errors import DetectorFailed

_WORKER = "app.detection.drawing:serve"
_MAX_REASON_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: those objects on the frame of that index, sampled every `interval` seconds, into `target`."""

    source: Path
    media_type: Literal["Image", "Video"]
    interval: float
    index: int
    objects: tuple[DetectedObject, ...]
    target: Path


def draw_in_process(
    drawing: Drawing, media_limits: MediaLimits | None = None, limits: ProcessLimits | None = None
) -> None:
    """Returns when the target has been written, in the format of its ending. Raises DetectorFailed where it was not."""
    media_limits, limits = media_limits or MediaLimits(), limits or ProcessLimits()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_enter, args=(theirs, drawing, media_limits, limits), name="drawing", daemon=True)
    try:
        with theirs, processors.anywhere():
            process.start()
        reason = _reason(ours, limits.run_seconds)
    finally:
        ours.close()
        if process.pid is not None:
            process.kill()
            process.join()
    if reason:
        raise DetectorFailed(reason)


def _reason(connection: Connection, seconds: float) -> str:
    try:
        if connection.poll(seconds):
            return connection.recv_bytes(_MAX_REASON_BYTES).decode(errors="replace")
    except (EOFError, OSError):
        return "the process that draws died"
    return f"it takes longer than {seconds:g} seconds"


def _enter(connection: Connection, drawing: Drawing, media_limits: MediaLimits, limits: ProcessLimits) -> None:
    """Where the new process begins; the worker is found by name so that this side never imports it."""
    pkgutil.resolve_name(_WORKER)(connection, drawing, media_limits, limits)
