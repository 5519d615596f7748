"""Tiling of large pictures: the layout of the tiles, and merging of the boxes of all passes.

An object cut by a tile's edge is complete in the next tile if it is smaller than the iou, and complete in the pass
over the whole picture if it is large. A cut box therefore ranks below every complete box and is dropped where another
box covers most of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import IOU_THRESHOLD, Boxes, Floats, intersection_area, iou

MIN_OVERLAP = 0.2
"""The least share of a tile's side that it has in common with its neighbour."""

MAX_TILES = 2000
"""Per picture; larger tiles are used if there would be more."""

MAX_MERGED = 3000
_MAX_CANDIDATES = 20_000
_MIN_COVERED_SHARE = 0.5
_EDGE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of a picture, in the picture's pixels."""

    left: int
    top: int
    width: int
    height: int

    def to_picture_pixels(self, fractions: Floats) -> Floats:
        """Convert corners [M, 4] from fractions of the tile to pixels of the picture."""
        size, origin = (np.array(pair * 2, np.float32) for pair in ([self.width, self.height], [self.left, self.top]))
        return fractions * size + origin

    def is_cut(self, fractions: Floats, picture_width: int, picture_height: int) -> NDArray[np.bool_]:
        """Return a mask of the boxes that reach an edge of the tile inside the picture."""
        right, bottom = self.left + self.width < picture_width, self.top + self.height < picture_height
        inner_edges = np.array([self.left > 0, self.top > 0, right, bottom])
        reached = np.concatenate((fractions[:, :2] <= _EDGE_SHARE, fractions[:, 2:] >= 1 - _EDGE_SHARE), axis=1)
        cut: NDArray[np.bool_] = (reached & inner_edges).any(axis=1)
        return cut


def split_into_tiles(width: int, height: int, side: int) -> list[Tile]:
    """Return tiles of at most `side` pixels that cover a picture of that size evenly, row by row."""
    while _count(width, side) * _count(height, side) > MAX_TILES:
        side += max(1, side // 16)
    return [
        Tile(left, top, min(side, width), min(side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _count(length: int, side: int) -> int:
    return 1 if length <= side else math.ceil((length - side) / (side * (1 - MIN_OVERLAP))) + 1


def _starts(length: int, side: int) -> list[int]:
    count = _count(length, side)
    return [0] if count == 1 else [round(number * (length - side) / (count - 1)) for number in range(count)]


def merge(boxes: Boxes, cut: NDArray[np.bool_]) -> Boxes:
    """Merge the boxes of all passes within each class and return at most MAX_MERGED, most confident first.

    `cut` masks the boxes that a tile's edge cuts. Two complete boxes are the same object if non-maximum suppression
    says so; a cut box is part of an object whose box covers half of it.
    """
    order = np.lexsort((-boxes.scores, cut))[:_MAX_CANDIDATES]
    boxes, cut = boxes.take(order), cut[order]
    selected: list[int] = []
    remaining = np.arange(len(order))
    while remaining.size and len(selected) < MAX_MERGED:
        best, rest = int(remaining[0]), remaining[1:]
        selected.append(best)
        others = boxes.corners[rest]
        same = iou(boxes.corners[best], others) > IOU_THRESHOLD
        part = cut[rest] & (_covered_share(boxes.corners[best], others) > _MIN_COVERED_SHARE)
        remaining = rest[(boxes.classes[rest] != boxes.classes[best]) | ~(same | part)]
    boxes = boxes.take(np.array(selected, dtype=np.int64))
    return boxes.take(np.argsort(-boxes.scores, kind="stable"))


def _covered_share(box: Floats, others: Floats) -> Floats:
    """Return the intersection of one box [4] with each of the others [M, 4], as a share of the smaller area."""
    smaller = np.minimum((box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1))
    covered: Floats = intersection_area(box, others) / np.maximum(smaller, np.float32(1e-9))
    return covered
