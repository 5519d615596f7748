"""The allow-list of extensions, and the first bytes that match them."""

import pytest

from app.errors import UnsupportedMedia
from app.media.types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of

TS = b"G" + bytes(187)
M2TS = bytes(4) + TS
FEC_TS = TS + bytes(16)
HEADS = {
    "JPEG": [b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xd8\xff\xe1..Exif"],
    "PNG": [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"],
    "WebP": [b"RIFF\x24\0\0\0WEBPVP8 "],
    "BMP": [b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", b"BM" + bytes(12) + b"\x7c\0\0\0"],
    "TIFF": [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"],
    "MP4/QuickTime": [
        b"\0\0\0\x18ftypmp42\0\0\0\0",
        b"\0\0\0\x14ftypqt  \0\0\0\0",
        b"\0\0\x10\0moov\0\0\0\x6cmvhd",
        b"\0\0\0\0mdat....",
        b"\0\0\0\x01mdat\0\0\0\0\0\x10\0\0",
        b"\0\0\0\x08wide\0\x10\0\0mdat",
        b"\0\0\0\x10free....",
        b"\0\0\0\x10skip....",
        b"\0\0\0\x14pnot....",
    ],
    "Matroska/WebM": [b"\x1aE\xdf\xa3\x9fB\x86\x81\x01"],
    "AVI": [b"RIFF\x24\0\0\0AVI LIST"],
    "MPEG-TS": [
        TS * 8,
        TS * 2,
        TS + b"G",
        M2TS * 8,
        M2TS + bytes(4) + b"G",
        FEC_TS * 8,
        (TS * 22)[1:],
        (M2TS * 22)[100:],
        (FEC_TS * 22)[203:],
        bytes(2000) + TS * 11,
        TS * 3 + bytes(188) + TS * 6,
    ],
    "GIF": [b"GIF89a\x10\0\x10\0", b"GIF87a\x10\0\x10\0"],
    "HEIC/AVIF": [
        b"\0\0\0\x24ftypheic\0\0\0\0",
        b"\0\0\0\x24ftypheix\0\0\0\0",
        b"\0\0\0\x20ftypmif1\0\0\0\0heic",
        b"\0\0\0\x20ftypavif\0\0\0\0",
    ],
    "MPEG": [b"\0\0\1\xba\x44\0\4\0", b"\0\0\1\xb3\x14\0\xf0"],
    "Windows Media": [bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")],
    "Flash Video": [b"FLV\1\5\0\0\0\x09"],
}
SOUND = [(family, head) for family, heads in HEADS.items() for head in heads]
FOREIGN = {
    "nothing": b"",
    "a PDF": b"%PDF-1.7\n",
    "a ZIP": b"PK\x03\x04" + bytes(100),
    "an ffconcat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "HTML": b"<!doctype html><script>",
    "a raw picture of Canon's": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "a JPEG XL picture": b"\0\0\0\x14ftypjxl \0\0\0\0",
    "half a GIF mark": b"GIF8",
    "a sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "half a JPEG mark": b"\xff\xd8",
    "a box too small": b"\0\0\0\x02moov",
    "text that begins like a bitmap": b"BMW drivers of the world",
    "one sync byte": TS,
    "a lost sync byte": TS * 3 + bytes(188) + TS * 3,
    "sync bytes too far apart": (b"G" + bytes(204)) * 18,
    "four sync bytes from any byte on": bytes(2000) + TS * 4 + bytes(1000),
}
IMAGES = "jpg jpeg jpe jfif png webp bmp tif tiff gif heic heif avif"
VIDEOS = "mp4 mov m4v mkv webm avi ts mts m2ts mpg mpeg wmv flv 3gp insv lrf"


def test_the_allow_list_is_the_contracts() -> None:
    assert {name for name, media_type in MEDIA_TYPES.items() if media_type.kind == "Image"} == set(IMAGES.split())
    assert {name for name, media_type in MEDIA_TYPES.items() if media_type.kind == "Video"} == set(VIDEOS.split())


def test_each_is_served_as_what_it_is() -> None:
    for media_type in MEDIA_TYPES.values():
        assert media_type.content_type.startswith(f"{media_type.kind.lower()}/")


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.jpg", "jpg"), ("A.JPG", "jpg"), ("a.tar.Mp4", "mp4"), (".png", "png"), ("ä b.m2ts", "m2ts")],
)
def test_the_extension_is_the_last_and_lowercase(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@pytest.mark.parametrize("name", ["", "jpg", "a.", "a.psd", "a.jpg.exe", "a.jpg ", "a.ｊｐｇ", "a." + "x" * 4000])
def test_another_extension_is_refused_by_name_and_with_those_allowed(name: str) -> None:
    with pytest.raises(UnsupportedMedia) as refusal:
        extension_of(name)
    extension = name.rpartition(".")[2][:16] if "." in name else ""
    assert extension in str(refusal.value)
    assert "allowed: jpg, jpeg, jpe, jfif, png" in str(refusal.value)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("extension", MEDIA_TYPES)
def test_the_first_bytes_must_be_of_the_extensions_family(extension: str) -> None:
    for family, head in SOUND:
        if MEDIA_TYPES[extension].family == family:
            check_first_bytes(extension, head)
        else:
            with pytest.raises(UnsupportedMedia, match=rf"named \.{extension} .* first bytes are those of {family}"):
                check_first_bytes(extension, head)


@pytest.mark.parametrize("head", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("extension", ["jpg", "bmp", "mp4", "ts", "avi"])
def test_other_kinds_of_files_are_refused_under_every_name(head: bytes, extension: str) -> None:
    with pytest.raises(UnsupportedMedia, match="match no accepted file type"):
        check_first_bytes(extension, head)


@pytest.mark.parametrize("extension", ["heic", "avif", "mp4"])
@pytest.mark.parametrize("brand", [b"hevc", b"msf1", b"avis"])
def test_a_sequence_of_pictures_is_a_picture_or_a_video_by_its_name(brand: bytes, extension: str) -> None:
    check_first_bytes(extension, b"\0\0\0\x20ftyp" + brand + bytes(20))


def test_the_head_is_long_enough_for_the_longest_signature() -> None:
    assert len(FEC_TS * 8) <= HEAD_BYTES
