"""The output layouts, and non-maximum suppression."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.inference.boxes import MAX_BOXES, Boxes, Floats, Layout, iou, layout_of, read_output, suppress


def array(*rows: Sequence[float]) -> Floats:
    return np.array(rows, dtype=np.float32)


def boxes(*rows: tuple[Sequence[float], float, int]) -> Boxes:
    corners, scores, classes = zip(*rows, strict=True)
    return Boxes(array(*corners), np.array(scores, dtype=np.float32), np.array(classes))


@pytest.mark.parametrize(
    ("shape", "classes", "layout"),
    [
        ((1, 84, 8400), 80, Layout.V8),
        ((1, 84, 3549), 80, Layout.V8),
        ((1, 5, 8400), 1, Layout.V8),
        ((1, 6, 8400), 2, Layout.V8),
        ((1, 8400, 84), 80, Layout.V8_TRANSPOSED),
        ((1, 8400, 5), 1, Layout.V8_TRANSPOSED),
        ((1, 8400, 6), 2, Layout.V8_TRANSPOSED),
        ((1, 300, 6), 2, Layout.END_TO_END),
        ((1, 0, 6), 80, Layout.END_TO_END),
        ((1, 8400, 85), 81, Layout.V8_TRANSPOSED),
        ((1, 25200, 85), 80, Layout.V5),
        ((1, 25200, 6), 1, Layout.V5),
        ((1, 300, 6), 1, Layout.END_TO_END),
        ((1, 300, 6), 80, Layout.END_TO_END),
        ((1, 84, 8400), 79, None),
        ((1, 116, 8400), 80, None),
        ((2, 84, 8400), 80, None),
        ((1, 1000), 80, None),
    ],
)
def test_the_layout_is_told_by_the_shape_and_the_classes(
    shape: tuple[int, ...], classes: int, layout: Layout | None
) -> None:
    assert layout_of(shape, classes, cells=8400) is layout


def test_a_v8_output_is_read() -> None:
    # Two candidates, in columns: cx, cy, w, h, and the scores of two classes.
    output = array([10, 50], [20, 60], [4, 10], [8, 20], [0.2, 0.6], [0.9, 0.1])[None]
    read = read_output(output, Layout.V8, 0.5)
    assert read.corners.tolist() == [[8, 16, 12, 24], [45, 50, 55, 70]]
    assert read.scores.tolist() == pytest.approx([0.9, 0.6])
    assert read.classes.tolist() == [1, 0]


def test_a_v5_output_is_read_with_its_objectness() -> None:
    output = array([10, 20, 4, 8, 0.5, 0.2, 0.9], [50, 60, 10, 20, 0.9, 0.8, 0.1])[None]
    read = read_output(output, Layout.V5, 0.3)
    assert read.corners.tolist() == [[45, 50, 55, 70], [8, 16, 12, 24]]
    assert read.scores.tolist() == pytest.approx([0.72, 0.45])
    assert read.classes.tolist() == [0, 1]
    assert len(read_output(output, Layout.V5, 0.5).scores) == 1


def test_an_end_to_end_output_is_read() -> None:
    output = array([1, 2, 3, 4, 0.6, 7], [5, 6, 7, 8, 0.9, 2], [0, 0, 0, 0, 0, 0])[None]
    read = read_output(output, Layout.END_TO_END, 0.5)
    assert read.corners.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert read.classes.tolist() == [2, 7]


def test_half_precision_is_read_in_full() -> None:
    output = array([10], [20], [4], [8], [0.75])[None].astype(np.float16)
    read = read_output(output, Layout.V8, 0.5)
    assert read.corners.dtype == np.float32
    assert read.scores.tolist() == [0.75]


def test_the_threshold_itself_is_enough() -> None:
    output = array([10], [20], [4], [8], [0.5])[None]
    assert len(read_output(output, Layout.V8, 0.5).scores) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("layout", list(Layout))
def test_numbers_that_are_not_finite_are_no_boxes(layout: Layout, bad: float) -> None:
    for place in range(6):
        row = array([10, 20, 30, 40, 0.9, 0.9])
        row[0, place] = bad
        output = row.T[None] if layout is Layout.V8 else row[None]
        assert len(read_output(output, layout, 0.5).scores) == 0


@pytest.mark.parametrize("layout", [Layout.V8, Layout.V8_TRANSPOSED, Layout.V5])
def test_boxes_of_negative_size_are_none(layout: Layout) -> None:
    row = array([10, 20, -4, 8, 0.9, 0.9], [10, 20, 4, 0, 0.9, 0.9], [50, 60, 10, 20, 0.9, 0.9])
    output = row.T[None] if layout is Layout.V8 else row[None]
    assert read_output(output, layout, 0.5).corners.tolist() == [[45, 50, 55, 70]]


anything = st.floats(width=32) | st.sampled_from([0.0, -1.0, 0.5, 1.0, 3.4e38, -3.4e38, float("nan"), float("inf")])


@given(st.sampled_from(list(Layout)), st.lists(st.lists(anything, min_size=6, max_size=6), max_size=20))
def test_whatever_numbers_a_model_gives_what_is_read_is_a_box(layout: Layout, rows: list[list[float]]) -> None:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    read = suppress(read_output((table.T if layout is Layout.V8 else table)[None], layout, 0.5))
    assert np.isfinite(read.corners).all()
    assert (read.corners[:, 2:] >= read.corners[:, :2]).all()
    assert np.isfinite(read.scores).all()
    assert (read.scores >= 0.5).all()
    assert ((read.classes >= 0) & (read.classes < 1 << 16)).all()
    assert (np.diff(read.scores) <= 0).all()


def test_of_boxes_that_cover_each_other_the_most_confident_remains() -> None:
    kept = suppress(
        boxes(([0, 0, 10, 10], 0.9, 0), ([1, 1, 10, 10], 0.8, 0), ([20, 20, 30, 30], 0.7, 0), ([0, 0, 9, 9], 0.6, 0))
    )
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])


def test_boxes_of_other_classes_suppress_nothing() -> None:
    kept = suppress(boxes(([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 10], 0.8, 1)))
    assert kept.classes.tolist() == [0, 1]


def test_nothing_suppressed_is_nothing() -> None:
    none = Boxes(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    assert len(suppress(none).scores) == 0


def test_there_is_an_end_to_the_boxes_of_one_picture() -> None:
    kept = suppress(boxes(*(([20 * n, 0, 20 * n + 10, 10], 0.9, 0) for n in range(MAX_BOXES + 50))))
    assert len(kept.scores) == MAX_BOXES


def test_overlap_is_intersection_over_union() -> None:
    others = array([0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [0, 0, 0, 0])
    assert iou(array([0, 0, 10, 10])[0], others).tolist() == pytest.approx([1, 1 / 3, 0, 0])


corner = st.integers(0, 40)
box = st.tuples(corner, corner, st.integers(1, 20), st.integers(1, 20), st.integers(1, 99), st.integers(0, 2))


@given(st.lists(box, max_size=25))
def test_suppression_keeps_no_two_that_overlap_and_drops_none_that_stands_alone(
    rows: list[tuple[int, int, int, int, int, int]],
) -> None:
    rows.sort(key=lambda row: -row[4])
    if not rows:
        return
    given_boxes = boxes(*(([x, y, x + w, y + h], score / 100, kind) for x, y, w, h, score, kind in rows))
    kept = suppress(given_boxes)
    for first, second in itertools.combinations(range(len(kept.scores)), 2):
        same_class = kept.classes[first] == kept.classes[second]
        assert not same_class or iou(kept.corners[first], kept.corners[second : second + 1])[0] <= 0.45
    for corners, kind in zip(given_boxes.corners, given_boxes.classes, strict=True):
        rivals = iou(corners, kept.corners[kept.classes == kind])
        assert rivals.max() > 0.45
