"""The YOLO detector: runs the model on the whole picture and, if tiling is on, on each tile of a large one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.detection.detector import DetectedObject, Picture
from app.detection.inference.boxes import Boxes, Floats, Layout, read_output, suppress
from app.detection.inference.letterbox import Letterbox
from app.detection.inference.model import Model
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.detection.inference.tiles import Tile, merge, split_into_tiles
from app.settings.detector import DEFAULT_OPTIONS, DetectorOptions

__all__ = ["BUILT_IN_MODEL", "YoloDetector"]


def _ignore() -> None:
    """The default callback."""


class YoloDetector:
    """A Detector whose model is loaded on creation. `detect` may be called from several threads.

    Raises SettingsError if the model cannot be used.
    """

    def __init__(self, model: Path, options: DetectorOptions = DEFAULT_OPTIONS) -> None:
        self.name = detector_name(model, options)
        self._model = Model(model, options)
        self._tile = options.tile
        self.labels = self._model.labels
        self.input_height, self.input_width = self._model.input_height, self._model.input_width

    @property
    def useful_side(self) -> int | None:
        """The longest side in pixels beyond which more detail is not worth its cost; None with tiling."""
        return None if self._tile is not None else 2 * max(self.input_height, self.input_width)

    def detect(
        self, picture: Picture, confidence: float, on_pass: Callable[[], None] = _ignore
    ) -> list[DetectedObject]:
        """Return detections of at least `confidence`, most confident first: at most 300, or 3000 with tiling.

        `on_pass` is called after each pass of the model, as a heartbeat.
        """
        height, width = picture.shape[:2]
        if self._tile is None or max(height, width) <= self._tile:
            return self._objects(self._infer(picture, confidence))
        return self._objects(
            self._infer_tiles(picture, confidence, split_into_tiles(width, height, self._tile), on_pass)
        )

    def _infer_tiles(
        self, picture: Picture, confidence: float, tiles: list[Tile], on_pass: Callable[[], None]
    ) -> Boxes:
        height, width = picture.shape[:2]
        found: list[Boxes] = []
        cut: list[NDArray[np.bool_]] = []
        for tile in (Tile(0, 0, width, height), *tiles):
            part = picture[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            boxes = self._infer(part, confidence)
            found.append(Boxes(tile.to_picture_pixels(boxes.corners), boxes.scores, boxes.classes))
            cut.append(tile.is_cut(boxes.corners, width, height))
            on_pass()
        boxes = merge(Boxes.concatenate(found), np.concatenate(cut))
        size = np.array([width, height] * 2, dtype=np.float32)
        return Boxes(np.clip(boxes.corners / size, 0, 1), boxes.scores, boxes.classes)

    def _infer(self, picture: Picture, confidence: float) -> Boxes:
        """Run the model once; the corners of the returned boxes are fractions of the picture."""
        letterbox = Letterbox.for_picture(picture, self.input_height, self.input_width)
        boxes = read_output(self._model.run(letterbox.fill(picture)), self._model.layout, confidence)
        boxes = boxes.take(
            _has_area(letterbox.to_fractions(boxes.corners))
        )  # boxes in the padding must not displace others
        if self._model.layout is not Layout.END_TO_END:
            boxes = suppress(boxes)
        return Boxes(letterbox.to_fractions(boxes.corners), boxes.scores, boxes.classes)

    def _objects(self, boxes: Boxes) -> list[DetectedObject]:
        return [
            self._object(*(float(side) for side in corners), score=float(score), number=int(number))
            for corners, score, number in zip(boxes.corners, boxes.scores, boxes.classes, strict=True)
        ]

    def _object(
        self, left: float, top: float, right: float, bottom: float, *, score: float, number: int
    ) -> DetectedObject:
        return DetectedObject(
            class_num=number,
            label=self.labels.get(number, str(number)),
            confidence=min(1.0, score),
            center_x=(left + right) / 2,
            center_y=(top + bottom) / 2,
            width=right - left,
            height=bottom - top,
        )


def _has_area(corners: Floats) -> NDArray[np.bool_]:
    """Return a mask of the boxes whose area is not empty."""
    extended: NDArray[np.bool_] = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return extended
