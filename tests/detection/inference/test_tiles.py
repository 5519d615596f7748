"""The layout of tiles, the merging of their boxes, and what the built-in model detects only with tiles."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.detection.detector import DetectedObject, Picture
from app.detection.inference.boxes import Boxes
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.detection.inference.tiles import MAX_TILES, Tile, merge, split_into_tiles
from app.detection.inference.yolo import YoloDetector
from app.settings import DetectorOptions
from tests.detection.onnx_bytes import constant_model

SIDE = 640


@pytest.fixture(scope="module")
def tiling() -> YoloDetector:
    return YoloDetector(BUILT_IN_MODEL, DetectorOptions(tile=SIDE))


@given(width=st.integers(1, 9000), height=st.integers(1, 9000), side=st.integers(64, 2000))
def test_tiles_cover_the_picture_and_lie_within_it(width: int, height: int, side: int) -> None:
    tiles = split_into_tiles(width, height, side)
    assert len(tiles) <= MAX_TILES
    for start, extent, length in (("left", "width", width), ("top", "height", height)):
        spans = sorted({(getattr(tile, start), getattr(tile, start) + getattr(tile, extent)) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        for (_, end), (begin, next_end) in itertools.pairwise(spans):
            assert end - begin >= 0.2 * (next_end - begin) - 1
    assert len({(tile.left, tile.top) for tile in tiles}) == len(tiles)
    assert {(tile.width, tile.height) for tile in tiles} == {(tiles[0].width, tiles[0].height)}


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (100_000_000, 1), (1, 100_000_000)])
def test_the_most_pixels_that_are_accepted_are_a_bounded_number_of_tiles(width: int, height: int) -> None:
    assert len(split_into_tiles(width, height, 64)) <= MAX_TILES
    assert len(split_into_tiles(10_000, 10_000, SIDE)) == 400


def test_a_picture_no_larger_than_a_tile_is_one() -> None:
    assert split_into_tiles(640, 480, SIDE) == [Tile(0, 0, 640, 480)]
    assert len(split_into_tiles(641, 640, SIDE)) == 2


def remaining(*rows: tuple[Sequence[float], float, int, bool]) -> list[float]:
    """Return the confidences of the boxes after merging. Each box has a class and a flag for being cut by a tile's
    edge.
    """
    corners, scores, classes, cut = (np.array(column) for column in zip(*rows, strict=True))
    kept = merge(Boxes(corners.astype(np.float32), scores.astype(np.float32), classes), cut)
    return [round(float(score), 2) for score in kept.scores]


def test_an_object_in_two_tiles_is_one() -> None:
    assert remaining(([10, 10, 50, 50], 0.7, 0, False), ([11, 10, 51, 50], 0.8, 0, False)) == [0.8]


def test_a_part_yields_to_the_whole_however_sure_the_model_is_of_it() -> None:
    assert remaining(([0, 0, 40, 100], 0.9, 0, True), ([0, 0, 100, 100], 0.5, 0, False)) == [0.5]


def test_a_part_that_lies_mostly_elsewhere_is_an_object_of_its_own() -> None:
    assert remaining(([0, 0, 100, 100], 0.9, 0, False), ([90, 0, 140, 100], 0.5, 0, True)) == [0.9, 0.5]


def test_a_small_object_before_a_large_one_is_kept() -> None:
    assert remaining(([0, 0, 100, 100], 0.9, 0, False), ([10, 10, 30, 30], 0.6, 0, False)) == [0.9, 0.6]


def test_objects_of_other_classes_are_left_alone() -> None:
    assert remaining(([0, 0, 100, 100], 0.9, 0, False), ([0, 0, 50, 100], 0.8, 1, True)) == [0.9, 0.8]


def test_a_part_that_nothing_covers_is_better_than_nothing() -> None:
    assert remaining(([0, 0, 40, 100], 0.6, 0, True), ([200, 0, 240, 100], 0.7, 0, False)) == [0.7, 0.6]


def test_only_edges_within_the_picture_cut() -> None:
    boxes = np.array([[0, 0.4, 0.1, 0.5], [0.9, 0.4, 1, 0.5], [0.4, 0, 0.5, 0.1], [0.3, 0.3, 0.5, 0.5]], np.float32)
    assert Tile(0, 0, 100, 100).is_cut(boxes, 200, 100).tolist() == [False, True, False, False]
    assert Tile(100, 50, 100, 100).is_cut(boxes, 200, 200).tolist() == [True, False, True, False]
    assert Tile(0, 0, 100, 100).is_cut(boxes, 100, 100).tolist() == [False] * 4


corner, extent = st.floats(0, 900, width=32), st.floats(1, 100, width=32)
rows = st.lists(st.tuples(corner, corner, extent, extent, st.floats(0, 1, width=32), st.integers(0, 1), st.booleans()))


@given(rows)
def test_what_remains_was_given_and_the_surest_whole_box_is_among_it(
    given_rows: list[tuple[float, float, float, float, float, int, bool]],
) -> None:
    table = np.array(given_rows, dtype=np.float32).reshape(-1, 7)
    corners = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), axis=1)
    cut = table[:, 6].astype(bool)
    kept = merge(Boxes(corners, table[:, 4], table[:, 5].astype(np.int64)), cut)
    assert {tuple(box) for box in kept.corners.tolist()} <= {tuple(box) for box in corners.tolist()}
    assert (np.diff(kept.scores) <= 0).all()
    assert len(kept.scores) >= min(1, len(given_rows))
    if not cut.all():
        assert kept.scores.max() >= table[~cut, 4].max()


def canvas(photo: Image.Image, side: int, at: tuple[int, int], size: tuple[int, int] = (4000, 3000)) -> Picture:
    picture = Image.new("RGB", size, (120, 130, 110))
    picture.paste(photo.resize((side, side)), at)
    return np.array(picture)


def people(found: list[DetectedObject]) -> list[DetectedObject]:
    return [one for one in found if one.label == "person"]


@pytest.mark.long
@pytest.mark.parametrize("at", [(1500, 900), (560, 520), (3800, 2800)])
def test_a_small_person_that_a_single_pass_misses_is_found_with_tiles(
    at: tuple[int, int], photo: Image.Image, detector: YoloDetector, tiling: YoloDetector
) -> None:
    picture = canvas(photo, 200, at)
    assert people(detector.detect(picture, 0.45)) == []
    (found,) = people(tiling.detect(picture, 0.6))
    # On the photo itself the person is around (0.370, 0.510), 0.681 wide and 0.964 high.
    assert found.center_x * 4000 == pytest.approx(at[0] + 0.37 * 200, abs=10)
    assert found.center_y * 3000 == pytest.approx(at[1] + 0.51 * 200, abs=10)
    assert found.width * 4000 == pytest.approx(0.68 * 200, abs=20)
    assert found.height * 3000 == pytest.approx(0.96 * 200, abs=20)


def test_a_large_person_remains_one_whatever_parts_the_tiles_show(photo: Image.Image, tiling: YoloDetector) -> None:
    found = people(tiling.detect(np.array(photo.resize((2000, 2000))), 0.6))
    (largest,) = (one for one in found if one.height > 0.8)
    assert largest.center_x == pytest.approx(0.37, abs=0.02)
    assert all(one is largest or one.width * one.height < 0.1 for one in found)


def test_a_picture_that_fits_a_tile_is_one_pass_with_the_same_result(
    photo: Image.Image, detector: YoloDetector, tiling: YoloDetector
) -> None:
    passes: list[None] = []
    picture = np.array(photo)
    assert tiling.detect(picture, 0.3, lambda: passes.append(None)) == detector.detect(picture, 0.3)
    assert passes == []


def test_every_pass_is_a_sign_of_life(tiling: YoloDetector) -> None:
    passes: list[None] = []
    tiling.detect(np.zeros((1000, 1300, 3), dtype=np.uint8), 0.45, lambda: passes.append(None))
    assert len(passes) == 1 + len(split_into_tiles(1300, 1000, SIDE)) == 7


def test_boxes_of_models_that_suppress_by_themselves_are_merged_too(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    middle = np.array([[[20, 20, 44, 44, 0.9, 0]]], dtype=np.float32)
    path.write_bytes(constant_model(middle, (1, 3, 64, 64), metadata={"names": "['x']"}))
    found = YoloDetector(path, DetectorOptions(tile=100)).detect(np.zeros((180, 100, 3), dtype=np.uint8), 0.5)
    # One in the middle of each tile; the box of the whole picture overlaps neither enough.
    assert sorted(round(one.center_y * 180) for one in found) == [50, 90, 130]


def test_results_with_tiles_or_other_labels_are_another_detector_s() -> None:
    plain = detector_name(BUILT_IN_MODEL)
    tiled = detector_name(BUILT_IN_MODEL, DetectorOptions(tile=SIDE))
    labelled = detector_name(BUILT_IN_MODEL, DetectorOptions(labels=("a", "b")))
    assert tiled == f"{plain}-tile640"
    assert labelled.startswith(f"{plain}-labels-")
    assert labelled != detector_name(BUILT_IN_MODEL, DetectorOptions(labels=("b", "a")))
    assert detector_name(BUILT_IN_MODEL, DetectorOptions(provider="cuda")) == plain


def test_a_detector_s_name_has_room_in_its_column(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 240}.onnx"
    path.write_bytes(b"weights")
    assert len(detector_name(path, DetectorOptions(labels=("a",), tile=10**9))) < 255


def test_with_tiles_a_picture_is_not_reduced(detector: YoloDetector, tiling: YoloDetector) -> None:
    assert detector.useful_side == 832
    assert tiling.useful_side is None
