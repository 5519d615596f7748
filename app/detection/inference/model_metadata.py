"""Reads a model's metadata: its classes and the size of its input. Nothing is loaded here.

Exporters write metadata as text: Python literals, as ultralytics does, or JSON.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.settings.detector import MAX_LABEL_CHARACTERS

DEFAULT_SIDE = 640
_SHOWN_CHARACTERS = 80


def class_names(model: Path, metadata: Mapping[str, str]) -> dict[int, str]:
    """Return the classes by number, from the metadata's `names`: a dict numbered from 0 without gaps, or a list.

    Raises SettingsError if they are missing or unusable.
    """
    text = metadata.get("names", "")
    names = _literal(text)
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    labels = _numbered(names) if isinstance(names, dict) else {}
    if not labels or set(labels) != set(range(len(labels))):
        expected = "class names in its metadata, `names`: {0: 'person', …}, or else in DETECTOR_LABELS"
        raise unfit_model(model, expected, repr(text[:_SHOWN_CHARACTERS]) if text else "none")
    for label in labels.values():
        if not 0 < len(label) <= MAX_LABEL_CHARACTERS or not label.isprintable():
            expected = f"printable class names of at most {MAX_LABEL_CHARACTERS} characters"
            raise unfit_model(model, expected, repr(label[:_SHOWN_CHARACTERS]))
    return {number: labels[number] for number in range(len(labels))}


def input_size(model: Path, shape: Sequence[int | str | None], metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return the input's height and width: from the model, else from the metadata's `imgsz`, else 640.

    Raises SettingsError unless the input is [1, 3, height, width].
    """
    match shape:
        case [1 | str() | None, 3 | str() | None, height, width]:
            fallback = _imgsz(metadata)
            sides = tuple(
                side if isinstance(side, int) else other for side, other in zip((height, width), fallback, strict=True)
            )
            if min(sides) > 0:
                return sides[0], sides[1]
    raise unfit_model(model, "an input of [1, 3, height, width]", str(list(shape)))


def unfit_model(model: Path, expected: str, found: str) -> SettingsError:
    """Return the error that stops the start in one line."""
    return SettingsError(f"the model {model.name!r} does not fit: expected {expected}, found {found}")


def _numbered(names: Mapping[Any, Any]) -> dict[int, str]:
    """Return the names with integer keys, since JSON's keys are strings. Empty if a key is not a number."""
    try:
        return {int(number): str(name).strip() for number, name in names.items()}
    except (TypeError, ValueError):
        return {}


def _imgsz(metadata: Mapping[str, str]) -> tuple[int, int]:
    match _literal(metadata.get("imgsz", "")):
        case int(side):
            return side, side
        case [int(height), int(width)]:
            return height, width
    return DEFAULT_SIDE, DEFAULT_SIDE


def _literal(text: str) -> Any:
    """Return the value of a JSON text or Python literal; None if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None
