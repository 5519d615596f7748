"""Hostile client file names become safe to show."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import MalformedUpload
from app.media.display_name import MAX_LENGTH, clean_name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("/absolute/a.jpg", "a.jpg"),
        ("C:\\Users\\me\\Desktop\\a.jpg", "a.jpg"),
        ("mixed/..\\a.jpg", "a.jpg"),
        ("a\0.jpg", "a.jpg"),
        ("a\r\nSet-Cookie: x.jpg", "aSet-Cookie: x.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("\u2066a\u2069\u200f.jpg", "a.jpg"),
        ("a\ud800b\udfff.jpg", "ab.jpg"),
        ("a\u2028b.jpg", "ab.jpg"),
        ("a\x7f\x85b.jpg", "ab.jpg"),
        ("cafe\u0301.jpg", "café.jpg"),
        ("cafe\0\u0301.jpg", "café.jpg"),
        ("  a.jpg \t", "a.jpg"),
        ("👩\u200d🚀.mp4", "👩\u200d🚀.mp4"),
        ("..jpg", "..jpg"),
    ],
)
def test_the_name_is_the_last_component_without_what_cannot_be_seen(raw: str, name: str) -> None:
    assert clean_name(raw) == name


@pytest.mark.parametrize("raw", ["", " ", ".", "..", "/", "a/", "a\\", "dir/..", "\0", "\u202e", "\ud800", "a/ \u2066"])
def test_nothing_left_is_a_malformed_upload(raw: str) -> None:
    with pytest.raises(MalformedUpload):
        clean_name(raw)


@pytest.mark.parametrize(
    ("raw", "end"),
    [("n" * 4096 + ".jpg", "n.jpg"), ("n" * 300, "nn"), ("." + "x" * 400, "xx"), ("é" * 300 + ".m2ts", "é.m2ts")],
)
def test_a_long_name_is_cut_and_keeps_its_extension(raw: str, end: str) -> None:
    assert len(clean_name(raw)) == MAX_LENGTH
    assert clean_name(raw).endswith(end)


alphabet = st.characters() | st.sampled_from("/\\.\0\u202e\u2066\ud800\udc00e\u0301 ")


@given(st.text(alphabet, max_size=600))
def test_any_name_becomes_one_that_is_safe_to_show(raw: str) -> None:
    try:
        name = clean_name(raw)
    except MalformedUpload:
        return
    assert 0 < len(name) <= MAX_LENGTH
    assert not set(name) & set("/\\")
    assert name not in {".", ".."}
    assert unicodedata.is_normalized("NFC", name)
    assert not {unicodedata.category(character) for character in name} & {"Cc", "Cs"}
    assert not {unicodedata.bidirectional(character) for character in name} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
    assert name.encode()
    assert clean_name(name) == name
