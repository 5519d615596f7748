"""Transforms a decoded video frame: square pixels, target size, rotation and mirroring."""

import math
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame

from app.detection.detector import Picture

Matrix = tuple[float, float, float, float]
"""a, b, c, d: a point is displayed at x' = a·x + c·y and y' = b·x + d·y."""
_MATRIX_SIZE = 9


def widened(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    """Return the size with square pixels: one side grows, neither shrinks."""
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def reduced(width: int, height: int, fit: int | None) -> tuple[int, int]:
    """Return the size, reduced to `fit` pixels for the longest side where it is larger and `fit` is given."""
    longest = max(width, height)
    if fit is None or longest <= fit:
        return width, height
    return max(1, round(width * fit / longest)), max(1, round(height * fit / longest))


def upright(picture: Picture, matrix: Matrix) -> Picture:
    """Apply a display matrix, to the nearest right angle and with its mirroring."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def display_matrix(frame: VideoFrame) -> Matrix:
    """Return how the frames of this stream are rotated and mirrored.

    Call it once per stream: after side data was read, a frame is only freed by the cycle collector.
    """
    try:
        side_data: Any = frame.side_data
        matrix = [np.frombuffer(bytes(data), np.int32) for data in side_data if data.type is SideData.DISPLAYMATRIX]
    except ValueError:  # PyAV raises if it does not know one kind of side data
        angle = math.radians(frame.rotation)
        return math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    if not matrix or matrix[0].size != _MATRIX_SIZE:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = (float(number) for number in matrix[0])
    return a, b, c, d
