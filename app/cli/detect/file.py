"""`flask detect file`: runs a model on files without the service; needs no database or key and stores nothing.

Each file is decoded in a detector process, as in the service; a file that kills it does not affect the others.
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
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.detection.limits import MediaLimits
from app.detection.results import DetectedObject, FrameResult
from app.errors import DetectionsError, SettingsError
from app.media.types import HEAD_BYTES, MEDIA_TYPES, Kind, check_first_bytes, extension_of
from app.runs.detector_process import DetectorProcess, Drawing, FrameCount, Job
from app.runs.model_check import load_model
from app.settings import MIN_CONFIDENCE, DetectorSettings

DRAWING_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(slots=True)
class FileResult:
    """The result of one file: frames with detections, warnings about missing parts, and the error, if any."""

    path: Path
    kind: Kind | None = None
    frames: int = 0
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    detections: list[FrameResult] = field(default_factory=list)
    error: str | None = None


def _within(
    maximum: float, minimum: float = 0.0
) -> Callable[[click.Context, click.Parameter, float | None], float | None]:
    def check(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
        if value is not None and not (0 < value <= maximum and value >= minimum):
            bound = f"at least {minimum:g}" if minimum else "more than 0"
            raise click.BadParameter(f"must be {bound} and at most {maximum:g}, not {value:g}.")
        return value

    return check


@click.command(
    "file",
    short_help="Detect on files without the service.",
    epilog=usage(
        "flask detect file photo.jpg flight.mp4",
        "flask detect file photo.jpg --draw boxes.png",
        "DETECTOR_MODEL=own.onnx flask detect file *.jpg --json | jq '.files[].error'",
        exits={0: "every file was processed", 1: "a file failed; the others were processed"},
    ),
)
@click.argument("files", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@json_option
@click.option(
    "--draw",
    "target",
    metavar="OUT.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the picture, or the video's frame with most detections, with its boxes; for one PATH only.",
)
@click.option("--confidence", type=float, callback=_within(1, MIN_CONFIDENCE), help="Overrides DETECTOR_CONFIDENCE.")
@click.option(
    "--frame-interval", metavar="SECONDS", type=float, callback=_within(3600), help="Overrides FRAME_INTERVAL_SECONDS."
)
def detect_file(
    files: Sequence[str], as_json: bool, target: Path | None, confidence: float | None, frame_interval: float | None
) -> None:
    """Detect objects on pictures and videos without the service. Only the detector's settings are read."""
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
        file_results = [_detect(process, path, confidence, interval) for path in paths]
        if target is not None:
            _draw(process, file_results[0], interval, target)
    if as_json:
        show_json({"detector": name, "files": [_document(file_result) for file_result in file_results]})
    else:
        show_table(
            ("file", "frame", "time", "label", "confidence", "box: left, top, right, bottom"),
            (row for file_result in file_results for row in _rows(file_result)),
            optional=("frame",),
        )
    if any(file_result.error for file_result in file_results):
        sys.exit(1)


def _check_target(target: Path, paths: Sequence[Path]) -> None:
    if len(paths) != 1:
        raise click.UsageError(f"--draw takes one file, not {len(paths)}.")
    if target.suffix.lower() not in DRAWING_EXTENSIONS:
        raise click.UsageError(f"--draw writes {', '.join(DRAWING_EXTENSIONS)}, not {str(target)!r}.")
    if target.exists() and target.samefile(paths[0]):
        raise click.UsageError(f"--draw would overwrite the input {str(paths[0])!r}.")
    if not target.parent.is_dir():
        raise click.UsageError(f"--draw: the folder {str(target.parent)!r} does not exist.")


def _detect(process: DetectorProcess, path: Path, confidence: float, interval: float) -> FileResult:
    file_result = FileResult(path)
    try:
        file_result.kind = _kind_of(path)
        job = Job(path.absolute(), file_result.kind, confidence, interval)
        with progress_bar(path.name) as advance, closing(process.run(job)) as items:
            total: int | None = None
            for item in items:
                if isinstance(item, FrameCount):
                    total = item.frames
                elif isinstance(item, FrameResult):
                    file_result.frames += 1
                    if item.objects:
                        file_result.detections.append(item)
                    advance(file_result.frames, total)
        file_result.skipped, file_result.warnings = process.skipped, process.warnings
    except SettingsError:
        raise
    except DetectionsError as error:
        file_result.error = str(error)
    except OSError as error:
        file_result.error = f"the file cannot be read: {error.strerror}"
    for text in (*file_result.warnings, *filter(None, [file_result.error])):
        note(f"{path}: {text}")
    return file_result


def _kind_of(path: Path) -> Kind:
    extension = extension_of(path.name)
    with path.open("rb") as file:
        check_first_bytes(extension, file.read(HEAD_BYTES))
    return MEDIA_TYPES[extension].kind


def _draw(process: DetectorProcess, file_result: FileResult, interval: float, target: Path) -> None:
    """Draw the picture, or the first frame of the video with the most detections."""
    if file_result.kind is None or file_result.error:
        return
    most = max(file_result.detections, key=lambda result: len(result.objects), default=FrameResult(0, 0.0, ()))
    drawing = Drawing(
        file_result.path.absolute(), file_result.kind, interval, most.index, most.objects, target.suffix.lower()
    )
    try:
        target.write_bytes(process.draw(drawing))
    except DetectionsError as error:
        file_result.error = f"{target} was not drawn: {error}"
    except OSError as error:
        file_result.error = f"{target} cannot be written: {error.strerror}"
    if file_result.error:
        note(file_result.error)


def _rows(file_result: FileResult) -> Iterable[tuple[object, ...]]:
    if file_result.error or not file_result.detections:
        yield file_result.path, None, None, "failed" if file_result.error else "no detections", None, None
    for result in file_result.detections:
        for detection in result.objects:
            yield (
                file_result.path,
                result.index,
                f"{result.time:.2f}",
                detection.label,
                f"{detection.confidence:.2f}",
                _box(detection),
            )


def _box(detection: DetectedObject) -> str:
    half_width, half_height = detection.width / 2, detection.height / 2
    sides = (
        detection.center_x - half_width,
        detection.center_y - half_height,
        detection.center_x + half_width,
        detection.center_y + half_height,
    )
    return " ".join(f"{abs(side):.3f}" for side in sides)


def _document(file_result: FileResult) -> dict[str, Any]:
    """Return the file's result in the API's form: boxes are fractions of the upright picture, times are in seconds."""
    return {
        "file": str(file_result.path),
        "mediaType": file_result.kind,
        "error": file_result.error,
        "frames": file_result.frames,
        "packetsSkipped": file_result.skipped,
        "warnings": list(file_result.warnings),
        "annotations": serializers.detections(file_result.detections),
    }
