"""Letterboxing: the picture's rectangle in the model's input, and the conversion back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.inference.letterbox import Letterbox


def test_a_wide_picture_lies_in_the_middle_unstretched() -> None:
    picture = np.full((100, 200, 3), 255, dtype=np.uint8)
    letterbox = Letterbox.for_picture(picture, 416, 416)
    assert letterbox.left == 0
    assert letterbox.top == 104
    assert letterbox.width == 416
    assert letterbox.height == 208
    tensor = letterbox.fill(picture)
    assert tensor.shape == (1, 3, 416, 416)
    assert tensor.dtype == np.float32
    assert (tensor[:, :, 104:312] == 1).all()
    assert np.allclose(tensor[:, :, :104], 114 / 255)
    assert np.allclose(tensor[:, :, 312:], 114 / 255)


def test_colours_come_red_first() -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[..., 0] = 255
    tensor = Letterbox.for_picture(picture, 32, 32).fill(picture)
    assert (tensor[0, 0] == 1).all()
    assert (tensor[0, 1:] == 0).all()


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), input_width=st.integers(32, 640))
def test_the_whole_picture_is_the_fractions_from_0_to_1(width: int, height: int, input_width: int) -> None:
    letterbox = Letterbox.for_picture(np.broadcast_to(np.uint8(0), (height, width, 3)), 320, input_width)
    right, bottom = letterbox.left + letterbox.width, letterbox.top + letterbox.height
    assert 0 <= letterbox.left < right <= input_width
    assert 0 <= letterbox.top < bottom <= 320
    assert letterbox.width == input_width or letterbox.height == 320
    corners = np.array([[letterbox.left, letterbox.top, right, bottom]], dtype=np.float32)
    assert letterbox.to_fractions(corners)[0].tolist() == pytest.approx([0, 0, 1, 1])


def test_boxes_that_reach_into_the_grey_are_cut_off_at_the_edge() -> None:
    letterbox = Letterbox.for_picture(np.zeros((100, 200, 3), dtype=np.uint8), 416, 416)
    corners = np.array([[-20, 0, 208, 500]], dtype=np.float32)
    assert letterbox.to_fractions(corners).tolist() == [[0, 0, 0.5, 1]]
