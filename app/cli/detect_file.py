"""`flask detect file`: a model on files, without the service: no database, no key, nothing stored.

Every file is decoded in the detector's process, as the service does it; one that kills it costs only itself.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from app import serializers
from app.cli.output import json_option, note, progress_bar, show_json, show_table
from app.cli.usage import usage
from app.detection.limits import MediaLimits
from app.detection.model_file import BUILT_IN_MODEL, detector_name
from app.detection.results import DetectedObject, FrameResult
from app.errors import DetectionsError, SettingsError
from app.media.types import HEAD_BYTES, MEDIA_TYPES, Kind, check_first_bytes, extension_of
from app.runs.detector_process import DetectorProcess, Drawing, Job, Total
from app.runs.model_check import load_model
from app.settings import MIN_CONFIDENCE, DetectorSettings

DRAWN_AS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(slots=True)
class Outcome:
    """What became of one file: the frames on which something was found, `warnings` of what is missing of a picture,
    and why it failed, if it did.
    """

    path: Path
    kind: Kind | None = None
    frames: int = 0
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    found: list[FrameResult] = field(default_factory=list)
    error: str | None = None


def _within(
    maximum: float, least: float = 0.0
) -> Callable[[click.Context, click.Parameter, float | None], float | None]:
    def check(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
        if value is not None and not (0 < value <= maximum and value >= least):
            bound = f"at least {least:g}" if least else "more than 0"
            raise click.BadParameter(f"must be {bound} and at most {maximum:g}, not {value:g}.")
        return value

    return check


@click.command(
    "file",
    short_help="Detect on files, without the service.",
    epilog=usage(
        "flask detect file photo.jpg flight.mp4",
        "flask detect file photo.jpg --draw boxes.png",
        "DETECTOR_MODEL=own.onnx flask detect file *.jpg --json | jq '.files[].error'",
        exits={0: "every file was looked at", 1: "a file failed; the others are done nevertheless"},
    ),
)
@click.argument("files", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@json_option
@click.option(
    "--draw",
    "target",
    metavar="OUT.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the picture, or the frame of the video with most detections, with its boxes; of one PATH.",
)
@click.option("--confidence", type=float, callback=_within(1, MIN_CONFIDENCE), help="Instead of DETECTOR_CONFIDENCE.")
@click.option(
    "--frame-interval", metavar="SECONDS", type=float, callback=_within(3600), help="Instead of FRAME_INTERVAL_SECONDS."
)
def detect_file(
    files: Sequence[str], as_json: bool, target: Path | None, confidence: float | None, frame_interval: float | None
) -> None:
    """Detect on pictures and videos, without the service; only the detector's settings are read."""
    paths = [Path(name) for name in files]
    if target is not None:
        _check_target(target, paths)
    settings = DetectorSettings.from_env()
    confidence, interval = confidence or settings.detector_confidence, frame_interval or settings.frame_interval
    model = settings.detector_model or BUILT_IN_MODEL
    name = detector_name(model, settings.detector_options)
    limits = MediaLimits(picture_pixels=settings.max_picture_pixels)
    with closing(DetectorProcess(model, limits, options=settings.detector_options)) as process:
        load_model(process, model)
        if settings.detector_options.sandbox == "auto" and process.sandbox and process.sandbox.missing:
            note(f"DETECTOR_SANDBOX=auto: on this machine {' and '.join(process.sandbox.missing)}.")
        outcomes = [_detect(process, path, confidence, interval) for path in paths]
        if target is not None:
            _draw(process, outcomes[0], interval, target)
    if as_json:
        show_json({"detector": name, "files": [_document(outcome) for outcome in outcomes]})
    else:
        show_table(
            ("file", "frame", "time", "label", "confidence", "box: left, top, right, bottom"),
            (row for outcome in outcomes for row in _rows(outcome)),
            spare=("frame",),
        )
    if any(outcome.error for outcome in outcomes):
        sys.exit(1)


def _check_target(target: Path, paths: Sequence[Path]) -> None:
    if len(paths) != 1:
        raise click.UsageError(f"--draw draws one file, not {len(paths)}.")
    if target.suffix.lower() not in DRAWN_AS:
        raise click.UsageError(f"--draw writes {', '.join(DRAWN_AS)}; {str(target)!r} is none of them.")
    if target.exists() and target.samefile(paths[0]):
        raise click.UsageError(f"--draw would overwrite {str(paths[0])!r} itself.")
    if not target.parent.is_dir():
        raise click.UsageError(f"--draw needs a folder; there is none at {str(target.parent)!r}.")


def _detect(process: DetectorProcess, path: Path, confidence: float, interval: float) -> Outcome:
    outcome = Outcome(path)
    try:
        outcome.kind = _kind_of(path)
        job = Job(path.absolute(), outcome.kind, confidence, interval)
        with progress_bar(path.name) as advance, closing(process.run(job)) as items:
            total: int | None = None
            for item in items:
                if isinstance(item, Total):
                    total = item.frames
                elif isinstance(item, FrameResult):
                    outcome.frames += 1
                    if item.objects:
                        outcome.found.append(item)
                    advance(outcome.frames, total)
        outcome.skipped, outcome.warnings = process.skipped, process.warnings
    except SettingsError:
        raise
    except DetectionsError as error:
        outcome.error = str(error)
    except OSError as error:
        outcome.error = f"the file cannot be read: {error.strerror}"
    for text in (*outcome.warnings, *filter(None, [outcome.error])):
        note(f"{path}: {text}")
    return outcome


def _kind_of(path: Path) -> Kind:
    extension = extension_of(path.name)
    with path.open("rb") as file:
        check_first_bytes(extension, file.read(HEAD_BYTES))
    return MEDIA_TYPES[extension].kind


def _draw(process: DetectorProcess, outcome: Outcome, interval: float, target: Path) -> None:
    """Draw a picture, or the frame of a video on which most was found, the first where several are equal."""
    if outcome.kind is None or outcome.error:
        return
    most = max(outcome.found, key=lambda result: len(result.objects), default=FrameResult(0, 0.0, ()))
    drawing = Drawing(outcome.path.absolute(), outcome.kind, interval, most.index, most.objects, target.suffix.lower())
    try:
        target.write_bytes(process.draw(drawing))
    except DetectionsError as error:
        outcome.error = f"{target} was not drawn: {error}"
    except OSError as error:
        outcome.error = f"{target} cannot be written: {error.strerror}"
    if outcome.error:
        note(outcome.error)


def _rows(outcome: Outcome) -> Iterable[tuple[object, ...]]:
    if outcome.error or not outcome.found:
        yield outcome.path, None, None, "failed" if outcome.error else "nothing found", None, None
    for result in outcome.found:
        for found in result.objects:
            yield (
                outcome.path,
                result.index,
                f"{result.time:.2f}",
                found.label,
                f"{found.confidence:.2f}",
                _box(found),
            )


def _box(found: DetectedObject) -> str:
    half_width, half_height = found.width / 2, found.height / 2
    sides = (
        found.center_x - half_width,
        found.center_y - half_height,
        found.center_x + half_width,
        found.center_y + half_height,
    )
    return " ".join(f"{abs(side):.3f}" for side in sides)


def _document(outcome: Outcome) -> dict[str, Any]:
    """The file's result as the API tells it: boxes are fractions of the upright picture, times seconds."""
    return {
        "file": str(outcome.path),
        "mediaType": outcome.kind,
        "error": outcome.error,
        "frames": outcome.frames,
        "packetsSkipped": outcome.skipped,
        "warnings": list(outcome.warnings),
        "annotations": serializers.detections(outcome.found),
    }
