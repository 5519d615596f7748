"""Large pictures in tiles: where the tiles lie, and what remains of the boxes that all of them gave.

An object that a tile's edge cuts is whole in the next tile if it is smaller than the overlap, and on the whole picture
if it is large. So a box that was cut counts less than any whole one, and yields to whatever covers most of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import IOU_THRESHOLD, Boxes, Floats, overlap, shared_area

OVERLAP = 0.2
"""The least part of a tile's side that it shares with its neighbour."""

MAX_TILES = 2000
"""Of one picture; one that would have more is cut into larger tiles."""

MAX_MERGED = 3000
_MAX_CANDIDATES = 20_000
_COVERED = 0.5
_EDGE = 0.02


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def placed(self, fractions: Floats) -> Floats:
        """Corners [M, 4] in fractions of the tile, as pixels of the picture."""
        size, origin = (np.array(pair * 2, np.float32) for pair in ([self.width, self.height], [self.left, self.top]))
        return fractions * size + origin

    def cut(self, fractions: Floats, picture_width: int, picture_height: int) -> NDArray[np.bool_]:
        """Which of those boxes reach an edge of the tile that is no edge of the picture."""
        right, bottom = self.left + self.width < picture_width, self.top + self.height < picture_height
        inner_edges = np.array([self.left > 0, self.top > 0, right, bottom])
        reached = np.concatenate((fractions[:, :2] <= _EDGE, fractions[:, 2:] >= 1 - _EDGE), axis=1)
        cut: NDArray[np.bool_] = (reached & inner_edges).any(axis=1)
        return cut


def tiles_of(width: int, height: int, side: int) -> list[Tile]:
    """Tiles of at most `side` pixels that cover a picture of that size, evenly, row by row."""
    while _count(width, side) * _count(height, side) > MAX_TILES:
        side += max(1, side // 16)
    return [
        Tile(left, top, min(side, width), min(side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _count(length: int, side: int) -> int:
    return 1 if length <= side else math.ceil((length - side) / (side * (1 - OVERLAP))) + 1


def _starts(length: int, side: int) -> list[int]:
    count = _count(length, side)
    return [0] if count == 1 else [round(number * (length - side) / (count - 1)) for number in range(count)]


def merged(boxes: Boxes, cut: NDArray[np.bool_]) -> Boxes:
    """What remains of all passes' boxes within each class, most confident first; at most MAX_MERGED.

    Two whole boxes are one object if they overlap as in non-maximum suppression; a box that was cut is part of an
    object whose box covers half of it.
    """
    order = np.lexsort((-boxes.scores, cut))[:_MAX_CANDIDATES]
    boxes, cut = boxes.take(order), cut[order]
    kept: list[int] = []
    waiting = np.arange(len(order))
    while waiting.size and len(kept) < MAX_MERGED:
        best, rest = int(waiting[0]), waiting[1:]
        kept.append(best)
        rivals = boxes.corners[rest]
        same = overlap(boxes.corners[best], rivals) > IOU_THRESHOLD
        part = cut[rest] & (_covered(boxes.corners[best], rivals) > _COVERED)
        waiting = rest[(boxes.classes[rest] != boxes.classes[best]) | ~(same | part)]
    boxes = boxes.take(np.array(kept, dtype=np.int64))
    return boxes.take(np.argsort(-boxes.scores, kind="stable"))


def _covered(box: Floats, others: Floats) -> Floats:
    """The intersection of one box [4] with each of the others [M, 4] over the area of the smaller of the two."""
    smaller = np.minimum((box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1))
    covered: Floats = shared_area(box, others) / np.maximum(smaller, np.float32(1e-9))
    return covered
