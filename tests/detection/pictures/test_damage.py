"""Damaged pictures of every format: decoded as far as possible, with a description of what is missing."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.detection.pictures.damage import GREY
from app.detection.pictures.decode import decode_picture
from app.errors import MediaTooLarge, Undecodable
from tests.detection.bombs import extended_webp
from tests.detection.heif_bytes import heic

SIDE = 256


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def interlaced_png(image: Image.Image) -> bytes:
    """Return a PNG with Adam7 interlacing, which Pillow reads but cannot write."""
    pixels = np.asarray(image)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for y, x, down, along in passes for row in pixels[y::down, x::along]]
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture(scope="module")
def small(photo: Image.Image) -> Image.Image:
    return photo.resize((SIDE, SIDE))


MADE: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda image: encoded(image, "JPEG", quality=90),
    "grey.jpeg": lambda image: encoded(image.convert("L"), "JPEG", quality=90),
    "cmyk.jpeg": lambda image: encoded(image.convert("CMYK"), "JPEG", quality=90),
    "png": lambda image: encoded(image, "PNG"),
    "palette.png": lambda image: encoded(image.convert("P"), "PNG"),
    "lossy.webp": lambda image: encoded(image, "WEBP"),
    "lossless.webp": lambda image: encoded(image, "WEBP", lossless=True),
    "tiff": lambda image: encoded(image, "TIFF"),
    "heic": heic,
    "turned.heic": lambda image: heic(image, turns=1, mirrored=True),
    "avif": lambda image: encoded(image, "AVIF", speed=10),
}


def decoded(content: bytes) -> tuple[NDArray[np.int_], str]:
    """Return the picture and its one warning."""
    frame = decode_picture(io.BytesIO(content))
    (warning,) = frame.warnings
    return frame.picture.astype(int), warning


def percentage(warning: str) -> int:
    found = re.search(r"(\d+) %", warning)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("name", MADE)
def test_a_sound_picture_has_no_warning(name: str, small: Image.Image) -> None:
    assert decode_picture(io.BytesIO(MADE[name](small))).warnings == ()


@pytest.mark.parametrize("name", [name for name in MADE if name != "turned.heic"])
@pytest.mark.parametrize("part", [0.35, 0.6, 0.9])
def test_a_picture_that_is_cut_off_shows_its_first_rows_and_says_which_are_missing(
    name: str, part: float, small: Image.Image
) -> None:
    content = MADE[name](small)
    picture, warning = decoded(content[: int(len(content) * part)])
    whole = decode_picture(io.BytesIO(content)).picture.astype(int)
    missing = percentage(warning)
    assert warning.startswith("the picture ends early: ")
    assert warning.endswith(f"the last {missing} % of its rows are missing")
    assert missing == pytest.approx(100 * (1 - part), abs=12)
    there = int(SIDE * (1 - missing / 100)) - 20
    assert abs(picture[:there] - whole[:there]).mean() < 6
    assert (picture[-1] == GREY).all()


def test_a_jpeg_without_its_last_two_bytes_is_whole(small: Image.Image) -> None:
    content = MADE["jpeg"](small)
    picture, warning = decoded(content[:-2])
    assert np.array_equal(picture, decode_picture(io.BytesIO(content)).picture)
    assert warning == "the picture ends early, but all its rows are there"


def test_a_progressive_jpeg_that_is_cut_off_is_coarse_all_over(small: Image.Image) -> None:
    content = encoded(small, "JPEG", quality=90, progressive=True)
    picture, warning = decoded(content[: len(content) // 2])
    assert warning == "the picture ends early: its finer details may be missing"
    assert abs(picture - np.asarray(small, dtype=int)).mean() < 12


def test_the_rows_of_a_bitmap_are_missing_where_it_stores_them_last(small: Image.Image) -> None:
    content = encoded(small, "BMP")
    picture, warning = decoded(content[: len(content) // 2])
    assert warning == "the picture ends early: the first 50 % of its rows are missing"
    assert (picture[: SIDE // 2 - 1] == GREY).all()
    assert np.array_equal(picture[SIDE // 2 + 1 :], np.asarray(small)[SIDE // 2 + 1 :])


@pytest.mark.parametrize("make", [interlaced_png, lambda image: encoded(image, "GIF")], ids=["png", "gif"])
@pytest.mark.parametrize("part", [0.35, 0.6])
def test_an_interlaced_picture_that_is_cut_off_is_coarse_all_over(
    make: Callable[[Image.Image], bytes], part: float, small: Image.Image
) -> None:
    content = make(small)
    picture, warning = decoded(content[: int(len(content) * part)])
    assert warning.startswith("the picture ends early: ")
    assert warning.endswith(" % of its pixels are missing")
    assert percentage(warning) == pytest.approx(100 * (1 - part), abs=5)
    assert abs(picture - np.asarray(small, dtype=int)).mean() < 25


@pytest.mark.parametrize("turns", range(4))
def test_a_grid_that_is_cut_off_lacks_its_last_tiles(turns: int, small: Image.Image) -> None:
    content = heic(small, tile=64, turns=turns)
    picture, warning = decoded(content[: len(content) * 6 // 10])
    expected = np.asarray(small, dtype=int)
    missing = (picture == GREY).all(axis=2)
    assert warning == f"the picture ends early: {round(100 * missing.mean())} % of its pixels are missing"
    assert 0.25 < missing.mean() < 0.6
    assert abs(picture - expected)[~missing].mean() < 6


def test_a_turned_picture_of_one_piece_is_grey_where_its_last_rows_are_shown(small: Image.Image) -> None:
    content = heic(small, turns=1)
    picture, _ = decoded(content[: len(content) // 2])
    assert (picture[:, SIDE * 3 // 4 :] == GREY).all()
    assert abs(picture - np.asarray(small, dtype=int))[:, : SIDE // 3].mean() < 6


@pytest.mark.parametrize("name", ["png", "palette.png", "lossless.webp"])
def test_a_fault_in_the_middle_is_said_and_ends_the_picture(name: str, small: Image.Image) -> None:
    content = MADE[name](small)
    middle = len(content) // 2
    picture, warning = decoded(content[:middle] + bytes(200) + content[middle + 200 :])
    assert warning.startswith("the picture is damaged: the last ")
    assert percentage(warning) == pytest.approx(50, abs=12)
    assert (picture[-1] == GREY).all()


def test_a_fault_in_a_compressed_tiff_leaves_the_strips_before_it(small: Image.Image) -> None:
    content = encoded(small, "TIFF", compression="tiff_lzw")
    middle = len(content) // 2
    picture, warning = decoded(content[:middle] + bytes(200) + content[middle + 200 :])
    assert warning.startswith("the picture is damaged: the last ")
    assert np.array_equal(picture[: SIDE // 3], np.asarray(small)[: SIDE // 3])


@pytest.mark.parametrize("alpha", [False, True])
def test_an_animation_that_is_cut_off_gives_its_first_picture(alpha: bool, small: Image.Image) -> None:
    first = small.convert("RGBA" if alpha else "RGB")
    if alpha:
        first.putpixel((0, 0), (0, 0, 0, 0))
    content = encoded(first, "WEBP", save_all=True, append_images=[small.rotate(90)])
    picture, warning = decoded(content[: len(content) * 7 // 10])
    assert warning == "the picture ends early, but all its rows are there"
    assert abs(picture - np.asarray(small, dtype=int)).mean() < 6
    _, warning = decoded(content[: len(content) // 4])
    assert warning.endswith("% of its rows are missing")


def test_a_thermal_picture_that_is_cut_off_is_stretched_by_what_is_there(small: Image.Image) -> None:
    values = 7000 + 3 * np.asarray(small.convert("L"), dtype=np.uint16)
    content = encoded(Image.fromarray(values), "TIFF")
    picture, _ = decoded(content[: len(content) * 3 // 4])
    assert abs(picture[: SIDE // 2, :, 0] - np.asarray(small.convert("L"), dtype=int)[: SIDE // 2]).mean() < 20


@pytest.mark.parametrize("name", MADE)
def test_a_picture_of_which_nothing_is_there_is_undecodable(name: str, small: Image.Image) -> None:
    with pytest.raises(Undecodable):
        decode_picture(io.BytesIO(MADE[name](small)[:40]))


def test_a_heic_that_ends_before_its_first_pixel_is_undecodable(small: Image.Image) -> None:
    for content in (heic(small), heic(small, tile=128)):
        with pytest.raises(Undecodable):
            decode_picture(io.BytesIO(content[: content.index(b"mdat") + 4]))


def test_an_animation_of_a_huge_first_picture_is_refused_from_its_header() -> None:
    frame = b"VP8L" + struct.pack("<I", 8) + b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(3)
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(16)
    content = extended_webp(8, 8)[:30] + animation + frame
    with pytest.raises(MediaTooLarge):
        decode_picture(io.BytesIO(content), max_pixels=100_000_000)


def test_damage_does_not_hide_a_picture_that_is_too_large(small: Image.Image) -> None:
    content = MADE["png"](small)
    with pytest.raises(MediaTooLarge):
        decode_picture(io.BytesIO(content[: len(content) // 2]), max_pixels=SIDE * SIDE - 1)


class FailingOnce(io.BytesIO):
    """A disk that fails at the read of that number."""

    def __init__(self, content: bytes, fails_at: int = 0) -> None:
        super().__init__(content)
        self.fails_at, self.reads = fails_at, 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads == self.fails_at:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_fault_of_the_disk_is_not_held_against_a_damaged_picture(small: Image.Image) -> None:
    content = MADE["png"](small)[:-1000]
    counted = FailingOnce(content)
    decode_picture(counted)
    for number in range(1, counted.reads + 1):
        with pytest.raises(OSError, match="Input/output error"):
            decode_picture(FailingOnce(content, number))
