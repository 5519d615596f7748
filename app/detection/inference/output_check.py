"""Checks on one picture that a model's output means what its layout says.

A model of another kind can have the shape of a known layout and would silently give wrong boxes. The check looks at
where the candidates lie and not at what was detected, because a sound model may detect nothing on the picture.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import Floats, Layout
from app.detection.inference.model_metadata import unfit_model
from app.errors import SettingsError

_SCORE_TOLERANCE = 0.01  # for half floats and approximated sigmoids
_MIN_DISTINCT_CENTRES = 64
"""With fewer distinct centres than this, their spread says nothing; a grid's candidates lie everywhere."""
_MIN_SPREAD = 0.25
_MAX_NEGATIVE_SHARE = 0.1
"""A share: a sound model may give slightly negative sizes for cells without an object."""


def trial_input(height: int, width: int) -> Floats:
    """Return an input [1, 3, height, width] in 0..1 with shapes of all sizes; always the same."""
    random = np.random.default_rng(7)
    picture = random.random((3, 1, 1), dtype=np.float32) * np.ones((3, height, width), dtype=np.float32)
    for _ in range(60):
        top, left = random.integers(0, height), random.integers(0, width)
        tall, wide = random.integers(1, height // 3 + 2), random.integers(1, width // 3 + 2)
        picture[:, top : top + tall, left : left + wide] = random.random((3, 1, 1), dtype=np.float32)
    noisy: Floats = np.clip(picture + random.normal(0, 0.05, picture.shape).astype(np.float32), 0, 1)[None]
    return noisy


def check_output(path: Path, output: NDArray[Any], layout: Layout, height: int, width: int) -> None:
    """Raise SettingsError if the output cannot mean what its layout says.

    `output` has the shape of `layout`; `height` and `width` are the input's, in pixels.
    """
    table = output[0].astype(np.float32)
    if layout is Layout.V8:
        table = table.T
    table = table[np.isfinite(table).all(axis=1)]  # `read_output` drops the other rows too
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
        raise _layout_error(path, layout, "scores of 0 to 1", f"scores from {scores.min():.3g} to {scores.max():.3g}")


def _check_sizes(path: Path, layout: Layout, sizes: Floats) -> None:
    negative = (sizes < 0).any(axis=1)
    if negative.size and negative.mean() > _MAX_NEGATIVE_SHARE:
        found = f"sizes from {sizes.min():.3g} to {sizes.max():.3g}"
        raise _layout_error(path, layout, "boxes with a width and a height above 0", found)


def _check_centres(path: Path, layout: Layout, centres: Floats, size: tuple[int, int]) -> None:
    if len(np.unique(centres, axis=0)) < _MIN_DISTINCT_CENTRES:
        return
    low, high = centres.min(axis=0), centres.max(axis=0)
    if ((high - low) < _MIN_SPREAD * np.array(size, dtype=np.float32)).all():
        found = f"centres from ({low[0]:.3g}, {low[1]:.3g}) to ({high[0]:.3g}, {high[1]:.3g})"
        raise _layout_error(path, layout, f"boxes in pixels, spread over an input of {size[0]} by {size[1]}", found)


def _layout_error(path: Path, layout: Layout, expected: str, found: str) -> SettingsError:
    kind = "a model exported with decoded boxes and scores in 0..1"
    return unfit_model(path, f"{expected}, as {layout.value} means it", f"{found}; DETECTOR_MODEL needs {kind}")
