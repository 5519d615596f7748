"""Turns a model's raw output into boxes: the output layouts of YOLO exports, and non-maximum suppression."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.45
MAX_CANDIDATES = 5000
MAX_BOXES = 300
MAX_CLASSES = 1 << 16
_MAX_COORDINATE = np.float32(1e6)  # beyond any input's edge; areas still fit float32

Floats = NDArray[np.float32]


class Layout(Enum):
    """The meaning of an output's numbers; nc is the number of classes, N that of candidates."""

    V8 = "[1, 4+nc, N]"  # cx, cy, w, h, then a score for each class
    V8_TRANSPOSED = "[1, N, 4+nc]"  # the same, transposed
    V5 = "[1, N, 5+nc]"  # cx, cy, w, h, objectness, then a score for each class
    END_TO_END = "[1, N, 6]"  # x1, y1, x2, y2, score, class, after non-maximum suppression


def layout_of(shape: tuple[int, ...], classes: int, cells: int) -> Layout | None:
    """Return the layout of an output of that shape, or None if it fits no layout.

    `cells` is the number of grid cells of all strides. With few classes [1, N, 6] is ambiguous: it is V5 if N is
    exactly three candidates per cell, V8_TRANSPOSED if N is exactly one per cell, and END_TO_END otherwise.
    """
    match shape:
        case (1, rows, _) if rows == 4 + classes:
            return Layout.V8
        case (1, candidates, 6) if candidates != {1: 3 * cells, 2: cells}.get(classes):
            return Layout.END_TO_END
        case (1, _, columns) if columns == 4 + classes:
            return Layout.V8_TRANSPOSED
        case (1, _, columns) if columns == 5 + classes:
            return Layout.V5
    return None


@dataclass(frozen=True, slots=True)
class Boxes:
    """M boxes: `corners` [M, 4] as x1, y1, x2, y2 in pixels of the model's input, `scores` [M] and `classes` [M]."""

    corners: Floats
    scores: Floats
    classes: NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: Sequence["Boxes"]) -> "Boxes":
        """Return the boxes of at least one part, in the order of the parts."""
        return cls(
            np.concatenate([part.corners for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.classes for part in parts]),
        )

    def take(self, selection: NDArray[Any]) -> Self:
        """Return the boxes at those indices, or where that mask is true."""
        return type(self)(self.corners[selection], self.scores[selection], self.classes[selection])


def read_output(output: NDArray[Any], layout: Layout, confidence: float) -> Boxes:
    """Return the candidates of at least `confidence` in an output of that layout, most confident first.

    Rows with a number that is not finite, with an empty box or with an impossible class are dropped.
    """
    table = output[0].astype(np.float32, copy=False)
    with np.errstate(all="ignore"):  # results that are not finite are dropped below
        match layout:
            case Layout.END_TO_END:
                corners, scores, classes = table[:, :4], table[:, 4], np.rint(table[:, 5])
            case Layout.V5:
                corners, scores, classes = _best_classes(table[:, :4], table[:, 5:] * table[:, 4:5])
            case _:
                table = table.T if layout is Layout.V8 else table
                corners, scores, classes = _best_classes(table[:, :4], table[:, 4:])
        valid = np.isfinite(corners).all(axis=1) & np.isfinite(scores) & (scores >= confidence)
        valid &= (corners[:, 2:] > corners[:, :2]).all(axis=1) & (classes >= 0) & (classes < MAX_CLASSES)
    corners = np.clip(corners[valid], -_MAX_COORDINATE, _MAX_COORDINATE)
    boxes = Boxes(corners, scores[valid], classes[valid].astype(np.int64))
    return boxes.take(np.argsort(-boxes.scores, kind="stable")[:MAX_CANDIDATES])


def _best_classes(centred: Floats, scores: Floats) -> tuple[Floats, Floats, NDArray[Any]]:
    classes = scores.argmax(axis=1)
    middle, half = centred[:, :2], centred[:, 2:] / 2
    corners: Floats = np.concatenate((middle - half, middle + half), axis=1, dtype=np.float32)
    return corners, scores[np.arange(len(scores)), classes], classes


def suppress(boxes: Boxes, iou_threshold: float = IOU_THRESHOLD) -> Boxes:
    """Apply non-maximum suppression within each class and return at most MAX_BOXES boxes.

    `boxes` come most confident first.
    """
    selected: list[int] = []
    remaining = np.arange(len(boxes.scores))
    while remaining.size and len(selected) < MAX_BOXES:
        best, rest = int(remaining[0]), remaining[1:]
        selected.append(best)
        other_class = boxes.classes[rest] != boxes.classes[best]
        remaining = rest[other_class | (iou(boxes.corners[best], boxes.corners[rest]) <= iou_threshold)]
    return boxes.take(np.array(selected, dtype=np.int64))


def iou(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union of one box [4] with each of the others [M, 4]."""
    intersection = intersection_area(box, others)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection
    ious: Floats = intersection / np.maximum(union, np.float32(1e-9))
    return ious


def intersection_area(box: Floats, others: Floats) -> Floats:
    """Return the area of the intersection of one box [4] with each of the others [M, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    area: Floats = np.clip(sides, 0, None).prod(axis=1)
    return area
