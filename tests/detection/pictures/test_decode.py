"""Pictures of every accepted format, and hostile ones."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.detection.detector import Picture
from app.detection.inference.yolo import YoloDetector
from app.detection.pictures.decode import decode_picture
from app.errors import MediaTooLarge, Undecodable
from tests.detection.bombs import bmp, extended_webp, lossless_webp, lossy_webp, png
from tests.detection.heif_bytes import heic

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIC")
ORIENTATIONS = range(1, 9)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> io.BytesIO:
    if kind == "HEIC":
        return io.BytesIO(heic(image, **options))
    if kind == "AVIF":
        options.setdefault("speed", 10)
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def decoded(file: io.BytesIO, fit: int | None = None) -> Picture:
    return decode_picture(file, max_pixels=100_000_000, fit=fit).picture


def turned_away(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as a camera stores it with that orientation."""
    steps = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in steps[orientation]:
        image = image.transpose(step)
    return image


def with_orientation(image: Image.Image, orientation: int, kind: str) -> io.BytesIO:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(turned_away(image, orientation), kind, exif=exif)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_accepted_format_is_decoded(kind: str, photo: Image.Image) -> None:
    picture = decoded(encoded(photo, kind))
    assert picture.shape == (512, 512, 3)
    assert picture.dtype == np.uint8
    assert abs(picture - np.asarray(photo, dtype=int)).mean() < 6


@pytest.mark.parametrize("kind", ["PPM", "ICNS", "TGA", "PDF", "JPEG2000"])
def test_other_formats_are_refused_even_though_pillow_knows_them(kind: str, photo: Image.Image) -> None:
    with pytest.raises(Undecodable, match="JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC or AVIF"):
        decoded(encoded(photo.resize((64, 64)), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_orientation_in_exif_is_applied(orientation: int, kind: str, photo: Image.Image) -> None:
    wide = photo.resize((120, 80))
    picture = decoded(with_orientation(wide, orientation, kind))
    assert picture.shape == (80, 120, 3)
    assert abs(picture - np.asarray(wide, dtype=int)).mean() < 8


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_heic_is_shown_turned_and_its_tiles_are_put_together(
    turns: int, mirrored: bool, tile: int | None, photo: Image.Image
) -> None:
    wide = photo.resize((192, 128))
    picture = decoded(io.BytesIO(heic(wide, turns=turns, mirrored=mirrored, tile=tile)))
    assert picture.shape == (128, 192, 3)
    assert abs(picture - np.asarray(wide, dtype=int)).mean() < 4


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_a_heic_of_every_brand_is_decoded(brand: bytes, photo: Image.Image) -> None:
    assert decoded(io.BytesIO(heic(photo.resize((64, 64)), brand=brand))).shape == (64, 64, 3)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photo_gives_the_box_of_the_upright_one(
    orientation: int, photo: Image.Image, detector: YoloDetector
) -> None:
    (upright,) = detector.detect(np.asarray(photo), 0.45)
    (turned,) = detector.detect(decoded(with_orientation(photo, orientation, "PNG")), 0.45)
    assert turned == upright


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert np.array_equal(decoded(encoded(photo, exif=exif)), np.asarray(photo))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_make_a_picture_unreadable(photo: Image.Image) -> None:
    assert decoded(encoded(photo, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).shape == (512, 512, 3)
    assert decoded(encoded(photo, "PNG", exif=b"rubbish")).shape == (512, 512, 3)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1)))
    if mode == "I;16":
        image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint16) * 257, (16, 1)))
    else:
        image = ramp.convert("RGB").convert(mode) if mode == "P" else ramp.convert(mode)
    picture = decoded(encoded(image, "TIFF"))
    assert picture.shape == (16, 256, 3)
    assert picture[:, :64].mean() < 64
    assert picture[:, 192:].mean() > 192


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 256, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert decoded(encoded(image, kind))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_thermal_picture_in_a_narrow_band_is_stretched(kind: str, photo: Image.Image, detector: YoloDetector) -> None:
    """Radiometric cameras use values such as 7000 to 7900 of 65535."""
    values = 7000 + np.asarray(photo.convert("L"), dtype=np.float32) * (900 / 255)
    picture = decoded(encoded(Image.fromarray(values.astype(np.uint16)), kind))
    (found,) = detector.detect(picture, 0.45)
    assert found.label == "person"
    assert found.confidence == pytest.approx(0.78, abs=0.05)


def test_a_few_dead_pixels_do_not_keep_a_narrow_band_dark() -> None:
    values = np.tile(np.linspace(7000, 7900, 256), (256, 1))
    values[0, :20], values[1, :20] = 0, 65535
    for mode in (np.uint16, np.float32):
        picture = decoded(encoded(Image.fromarray(values.astype(mode)), "TIFF"))
        assert picture[128, 8, 0] < 20
        assert picture[128, 247, 0] > 235


def test_a_quarter_of_the_range_is_not_stretched() -> None:
    """A single value is not stretched either."""
    wide = Image.fromarray(np.tile(np.linspace(20_000, 37_000, 256).astype(np.uint16), (8, 1)))
    assert decoded(encoded(wide, "PNG"))[0, ::255, 0].tolist() == [20_000 >> 8, 37_000 >> 8]
    assert np.unique(decoded(encoded(Image.fromarray(np.full((8, 8), 7000, np.uint16)), "PNG"))).tolist() == [27]


def test_numbers_without_a_range_are_stretched() -> None:
    image = Image.fromarray(np.array([[-5.0, 0.0, 5.0, np.nan]], dtype=np.float32))
    assert decoded(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 127, 255, 127]


def test_transparency_is_shown_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    assert decoded(encoded(image)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_a_palette_with_a_transparent_colour_is_shown_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decoded(encoded(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "PNG", "GIF", "AVIF"])
def test_only_the_first_picture_of_several_counts(kind: str) -> None:
    others = [Image.new("RGB", (8, 8), "blue"), Image.new("RGB", (8, 8), "lime")]
    picture = decoded(encoded(Image.new("RGB", (8, 8), "red"), kind, save_all=True, append_images=others))
    assert picture.shape == (8, 8, 3)
    assert picture[..., 0].min() > 200
    assert picture[..., 1:].max() < 50


def test_the_pictures_behind_the_first_one_of_a_camera_file_are_ignored(photo: Image.Image) -> None:
    assert decoded(encoded(photo, "MPO", save_all=True, append_images=[photo.resize((64, 64))])).shape == (512, 512, 3)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_reduced_without_moving_anything_in_it(
    kind: str, photo: Image.Image, detector: YoloDetector
) -> None:
    file = encoded(photo.resize((2700, 2700)), kind)
    picture = decoded(file, fit=832)
    assert picture.shape == (832, 832, 3)
    file.seek(0)
    (full,) = detector.detect(decoded(file), 0.45)
    (reduced,) = detector.detect(picture, 0.45)
    for name in ("center_x", "center_y", "width", "height"):
        assert getattr(reduced, name) == pytest.approx(getattr(full, name), abs=0.01)


SIDE = 12_000
BOMBS = {
    "lossless.webp": lossless_webp(SIDE, SIDE),
    "lossy.webp": lossy_webp(SIDE, SIDE),
    "extended.webp": extended_webp(SIDE, SIDE),
    "largest.webp": extended_webp(2**24, 2**24),
    "picture.png": png(SIDE, SIDE),
    "largest.png": png(2**31 - 1, 2**31 - 1),
    "picture.bmp": bmp(SIDE, SIDE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_of_too_many_pixels_is_refused_from_its_header(name: str) -> None:
    with pytest.raises(MediaTooLarge, match="at most 100000000"):
        decoded(io.BytesIO(BOMBS[name]))


def test_the_smallest_webp_bomb_costs_no_memory() -> None:
    assert len(BOMBS["lossless.webp"]) == 34
    before = peak_bytes()
    with pytest.raises(MediaTooLarge):
        decoded(io.BytesIO(BOMBS["lossless.webp"]))
    assert peak_bytes() - before < 8 * 1024**2


def test_the_limit_is_exact(photo: Image.Image) -> None:
    assert decode_picture(encoded(photo), max_pixels=512 * 512).picture.shape == (512, 512, 3)
    with pytest.raises(MediaTooLarge, match="512 by 512"):
        decode_picture(encoded(photo), max_pixels=512 * 512 - 1)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPJUNK", b"\0" * 4096, b"BM"])
def test_what_is_no_picture_is_undecodable(content: bytes) -> None:
    with pytest.raises(Undecodable):
        decoded(io.BytesIO(content))


def test_a_fault_that_pillow_has_no_name_for_is_the_picture_s(photo: Image.Image) -> None:
    for chunk in (b"IHDR", b"IDAT"):
        content = encoded(photo).getvalue().replace(chunk, b"d4(\xf4", 1)
        with pytest.raises(Undecodable, match=r"damaged|complete"):
            decoded(io.BytesIO(content))
    with pytest.raises(Undecodable, match="Truncated IHDR"):
        decoded(io.BytesIO(b"\x89PNG\r\n\x1a\n\0\0\0\5IHDR" + bytes(9)))


def test_a_picture_without_pixels_is_undecodable() -> None:
    with pytest.raises(Undecodable):
        decoded(io.BytesIO(png(0, 5)))


def test_a_fault_of_the_disk_is_not_held_against_the_picture(astronaut: Path) -> None:
    class FailingDisk(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 20_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error"):
        decoded(FailingDisk(astronaut.read_bytes()))


def peak_bytes() -> int:
    """Return the peak address space of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmPeak:")[1].split()[0]) * 1024
