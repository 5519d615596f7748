"""Whether what a model gives is what its layout promises, seen on one picture.

A model of another kind can have the very shape of a known layout: its boxes are then nonsense, and nothing else says
so. What it finds on the picture does not matter, since a sound model may find nothing; where its candidates lie does.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import Floats, Layout
from app.detection.inference.model_metadata import unfit
from app.errors import SettingsError

_SCORE_TOLERANCE = 0.01  # half floats, and sigmoids that were approximated
_MANY = 64
"""Candidates of a grid lie everywhere; of fewer different ones than so many nothing can be said."""
_LEAST_SPREAD = 0.25
_MOST_NEGATIVE = 0.1
"""A share: of a cell where nothing is to be seen a sound model may give a size a little below zero."""


def trial_input(height: int, width: int) -> Floats:
    """An input [1, 3, height, width], 0..1, with shapes of all sizes everywhere on it; always the same."""
    random = np.random.default_rng(7)
    picture = random.random((3, 1, 1), dtype=np.float32) * np.ones((3, height, width), dtype=np.float32)
    for _ in range(60):
        top, left = random.integers(0, height), random.integers(0, width)
        tall, wide = random.integers(1, height // 3 + 2), random.integers(1, width // 3 + 2)
        picture[:, top : top + tall, left : left + wide] = random.random((3, 1, 1), dtype=np.float32)
    noisy: Floats = np.clip(picture + random.normal(0, 0.05, picture.shape).astype(np.float32), 0, 1)[None]
    return noisy


def check_output(path: Path, output: NDArray[Any], layout: Layout, height: int, width: int) -> None:
    """Raise SettingsError, one line with what was seen, where an output cannot mean what its layout says.

    `output` has that layout's shape; `height` and `width` are the input's, in pixels.
    """
    table = output[0].astype(np.float32)
    if layout is Layout.V8:
        table = table.T
    table = table[np.isfinite(table).all(axis=1)]  # others are no candidates later, either
    if layout is Layout.END_TO_END:
        first, second, scores = table[:, :2], table[:, 2:4], table[:, 4:5]
        centres, sizes = (first + second) / 2, second - first
    else:
        centres, sizes, scores = table[:, :2], table[:, 2:4], table[:, 4:]
    _check_scores(path, layout, scores)
    _check_sizes(path, layout, sizes)
    is_box = (sizes > 0).all(axis=1)
    _check_centres(path, layout, centres[is_box], (width, height))


def _check_scores(path: Path, layout: Layout, scores: Floats) -> None:
    if scores.size and (scores.min() < -_SCORE_TOLERANCE or scores.max() > 1 + _SCORE_TOLERANCE):
        raise _unfit(path, layout, "scores of 0 to 1", f"scores from {scores.min():.3g} to {scores.max():.3g}")


def _check_sizes(path: Path, layout: Layout, sizes: Floats) -> None:
    negative = (sizes < 0).any(axis=1)
    if negative.size and negative.mean() > _MOST_NEGATIVE:
        seen = f"sizes from {sizes.min():.3g} to {sizes.max():.3g}"
        raise _unfit(path, layout, "boxes of a width and a height above 0", seen)


def _check_centres(path: Path, layout: Layout, centres: Floats, size: tuple[int, int]) -> None:
    if len(np.unique(centres, axis=0)) < _MANY:
        return
    low, high = centres.min(axis=0), centres.max(axis=0)
    if ((high - low) < _LEAST_SPREAD * np.array(size, dtype=np.float32)).all():
        seen = f"centres from ({low[0]:.3g}, {low[1]:.3g}) to ({high[0]:.3g}, {high[1]:.3g})"
        raise _unfit(path, layout, f"boxes in pixels, all over an input of {size[0]} by {size[1]}", seen)


def _unfit(path: Path, layout: Layout, expected: str, seen: str) -> SettingsError:
    kind = "a model that is exported with its boxes decoded and its scores in 0..1"
    return unfit(path, f"{expected}, as {layout.value} means it", f"{seen}; DETECTOR_MODEL needs {kind}")
