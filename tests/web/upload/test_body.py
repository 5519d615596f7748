"""Upload bodies on plain environs: names, limits, and forms of every shape."""

import io
import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import MalformedUpload, MediaTooLarge, UnsupportedMedia
from app.web.upload.body import UploadBody, open_upload
from app.web.upload.form import MAX_FORM_OVERHEAD

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILE = 'form-data; name="file"; filename="a.jpg"'


class Dribble:
    """A `wsgi.input` that returns the given chunks, each less than requested."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        data, self._left = self._left[:size], self._left[size:]
        return data


def part(content: bytes, disposition: str = FILE, *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def upload(body: bytes | Any, content_type: str = FORM, *, max_bytes: int = 1 << 30, **environ: str) -> UploadBody:
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    length = {"CONTENT_LENGTH": str(len(body))} if isinstance(body, bytes) else {"HTTP_TRANSFER_ENCODING": "chunked"}
    request = {"wsgi.input": stream, "CONTENT_TYPE": content_type, **length, **environ}
    return open_upload(request, max_bytes=max_bytes, idle_timeout=30.0)


def content(body: UploadBody) -> bytes:
    return b"".join(bytes(chunk) for chunk in body.chunks())


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return iter([data[start:end] for start, end in itertools.pairwise(places) if end > start])


# Content made of parts of the boundary is the worst case for the search.
tricky = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"b0undar", b"\r\n--b0undar", b"x"]), max_size=30
)


@given(
    pieces=tricky,
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
    epilogue=st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]),
)
def test_a_form_is_read_the_same_however_it_is_split(pieces: list[bytes], cuts: list[int], epilogue: bytes) -> None:
    expected = b"x" + b"".join(pieces)
    body = (
        part(b"field", 'form-data; name="other"') + part(expected) + part(b"1", 'form-data; name="x"') + END + epilogue
    )
    form = upload(Dribble(split(body, cuts)))
    assert form.name == "a.jpg"
    assert content(form) == expected


def test_content_that_comes_with_the_forms_end_is_handed_on_without_a_copy() -> None:
    whole = part(bytes(100_000)) + END
    at = whole.index(b"\0")
    rest = whole[at:]
    received = list(upload(Dribble(iter([whole[:at], rest]))).chunks())
    assert [len(chunk) for chunk in received] == [100_000]
    assert [chunk.obj is rest for chunk in received if isinstance(chunk, memoryview)] == [True]


@given(pieces=tricky, cuts=st.lists(st.integers(0, 10_000), max_size=40), lost=st.integers(3, 400))
def test_a_form_without_its_end_is_malformed_however_it_is_split(
    pieces: list[bytes], cuts: list[int], lost: int
) -> None:
    body = part(b"x" + b"".join(pieces)) + END
    with pytest.raises(MalformedUpload):
        content(upload(Dribble(split(body[: max(0, len(body) - lost)], cuts))))


MALFORMED = {
    "empty": b"",
    "no part": END,
    "no part called file": part(b"x", 'form-data; name="photo"; filename="a.jpg"') + END,
    "no file name": part(b"x", 'form-data; name="file"') + END,
    "an empty file name": part(b"x", 'form-data; name="file"; filename=""') + END,
    "an empty file": part(b"") + END,
    "two files": part(b"x") + part(b"y") + END,
    "bytes behind the end": part(b"x") + END + b"garbage",
    "a second form behind the end": part(b"x") + END + part(b"y") + END,
    "another boundary": (part(b"x") + END).replace(b"b0", b"c0"),
    "a part without a head": part(b"x") + f"--{BOUNDARY}\r\n\r\n1\r\n".encode() + END,
    "a part of another kind": part(b"x", 'attachment; filename="a.jpg"') + END,
    "a part with two names": part(b"x", FILE, 'Content-Disposition: form-data; name="file"; filename="b.jpg"') + END,
    "a line feed in a part's head": part(b"x", FILE, "X: a\nb") + END,
    "a head line without a colon": part(b"x", FILE, "nonsense") + END,
    "a length that is no number": part(b"x", FILE, "Content-Length: +1") + END,
    "a part longer than it says": part(b"xy", FILE, "Content-Length: 1") + END,
    "a part shorter than it says": part(b"xy", FILE, "Content-Length: 3") + END,
    "line feeds alone": (part(b"x") + END).replace(b"\r\n", b"\n"),
    "too much before the file": part(bytes(MAX_FORM_OVERHEAD), 'form-data; name="a"') + part(b"x") + END,
    "too much behind the file": part(b"x") + part(bytes(MAX_FORM_OVERHEAD), 'form-data; name="a"') + END,
    "too many parts": part(b"", 'form-data; name="a"') * 2000 + part(b"x") + END,
    "a preamble without end": bytes(2 * MAX_FORM_OVERHEAD),
    "a head without end": f"--{BOUNDARY}\r\nX: ".encode() + b"y" * MAX_FORM_OVERHEAD * 2,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_a_form_that_does_not_hold_one_whole_file_is_malformed(body: bytes, piece: int) -> None:
    pieces = (body[start : start + piece] for start in range(0, len(body), piece))
    with pytest.raises(MalformedUpload):
        content(upload(Dribble(pieces)))


NO_FILE = {
    "another name": (part(b"x", 'form-data; name="image"; filename="a.jpg"') + END, ["'image' with a file name"]),
    "a list's name": (
        part(b"x", 'form-data; name="files[]"; filename="a.jpg"') + END,
        ["'files[]' with a file name"],
    ),
    "a text field": (part(b"x", 'form-data; name="file"') + END, ["'file' without a file name"]),
    "several": (
        part(b"x", 'form-data; name="note"') + part(b"x", 'form-data; name="photo"; filename="a.jpg"') + END,
        ["'note' without a file name", "'photo' with a file name"],
    ),
    "no name": (part(b"x", 'form-data; filename="a.jpg"') + END, ["'' with a file name"]),
    "no part": (END, ["the parts received: none"]),
    "many": (part(b"", 'form-data; name="a"') * 12 + END, ["'a' without a file name", "and 2 more"]),
    "a name in another alphabet": (
        part(b"x", 'form-data; name="' + "ö".encode().decode("latin-1") + '"') + END,
        ["'ö'"],
    ),
}


@pytest.mark.parametrize(("body", "said"), NO_FILE.values(), ids=NO_FILE.keys())
def test_a_form_without_its_file_is_told_which_part_is_wanted_and_which_came(body: bytes, said: list[str]) -> None:
    with pytest.raises(MalformedUpload) as refused:
        upload(body)
    assert all(words in str(refused.value) for words in ["no part 'file' with a file name", *said])


@pytest.mark.parametrize("name", ["image", "files[]", "\t\x1b[31m"])
def test_a_large_file_under_another_name_is_named_before_the_limit_is(name: str) -> None:
    body = part(bytes(4 * MAX_FORM_OVERHEAD), f'form-data; name="{name}"; filename="a.jpg"') + END
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    with pytest.raises(MalformedUpload, match="no part 'file'") as refused:
        upload(Dribble(pieces))
    assert f"{name!r} with a file name" in str(refused.value)
    assert str(refused.value).isprintable()


def padded(body: bytes, padding: bytes) -> bytes:
    """Return the form with padding after each boundary."""
    boundary = f"--{BOUNDARY}".encode()
    return body.replace(boundary + b"\r\n", boundary + padding + b"\r\n").replace(END, END[:-2] + padding + b"\r\n")


@given(
    padding=st.text(" \t", max_size=100).map(str.encode),
    pieces=tricky,
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
)
def test_padding_behind_boundaries_is_no_part_of_anything(padding: bytes, pieces: list[bytes], cuts: list[int]) -> None:
    expected = b"x" + b"".join(pieces)
    body = padded(part(b"field", 'form-data; name="other"') + part(expected) + END, padding)
    assert content(upload(Dribble(split(body, cuts)))) == expected


@pytest.mark.parametrize("behind", [b"x", b" x", b"\n", b"\r", b" \rx", b"-", b"-x", b" " * 2000])
def test_anything_else_behind_a_boundary_is_malformed(behind: bytes) -> None:
    body = f"--{BOUNDARY}".encode() + behind + part(b"x")[len(BOUNDARY) + 2 :] + END
    with pytest.raises(MalformedUpload, match="after a boundary"):
        upload(Dribble(iter([body])))


ENCODED = ("base64", "quoted-printable", "x-uuencode", "BASE64", "")


@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoded_file_is_refused_for_its_encoding(encoding: str) -> None:
    form = part(b"/9j/4AAQSkZJRg==", FILE, f"Content-Transfer-Encoding: {encoding}") + END
    for body, content_type in ((form, FORM), (b"/9j/4AAQSkZJRg==", "image/jpeg")):
        head: dict[str, Any] = {} if content_type == FORM else {"HTTP_CONTENT_TRANSFER_ENCODING": encoding}
        with pytest.raises(UnsupportedMedia, match="Content-Transfer-Encoding must be binary, 8bit or 7bit") as refused:
            content(upload(body, content_type, QUERY_STRING="name=a.jpg", **head))
        assert repr(encoding) in str(refused.value)


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7bit", "Binary", " 8BIT "])
def test_a_file_that_is_said_to_be_as_it_is_is_taken(encoding: str) -> None:
    assert content(upload(part(b"x", FILE, f"content-transfer-encoding: {encoding}") + END)) == b"x"
    raw = upload(b"x", "image/jpeg", QUERY_STRING="name=a.jpg", HTTP_CONTENT_TRANSFER_ENCODING=encoding)
    assert content(raw) == b"x"


def test_the_encoding_of_another_part_is_its_own_affair() -> None:
    other = part(b"eA==", 'form-data; name="note"', "Content-Transfer-Encoding: base64")
    assert content(upload(other + part(b"x") + END)) == b"x"


@pytest.mark.parametrize("content_range", ["bytes 0-99/200", "bytes 0-99/100", "bytes */200", "nonsense", ""])
@pytest.mark.parametrize("content_type", [FORM, "video/mp4"])
def test_a_part_of_a_file_is_never_taken_for_the_whole(content_range: str, content_type: str) -> None:
    environ = {"wsgi.input": Unread(), "CONTENT_TYPE": content_type, "CONTENT_LENGTH": "100"}
    with pytest.raises(MalformedUpload, match=r"Content-Range .* send the whole file in one request"):
        open_upload(environ | {"HTTP_CONTENT_RANGE": content_range}, max_bytes=1 << 30, idle_timeout=30.0)
    with pytest.raises(MalformedUpload, match="Content-Range"):
        upload(part(b"x", FILE, f"Content-Range: {content_range}") + END)


@pytest.mark.parametrize(
    "content_type",
    [
        "", "text/plain", "application/json", "multipart/mixed; boundary=b0undary", "multipart/form-data",
        "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 300}", "image", "\xff",
        "multipart/form-data; boundary=\"b\xff\"",
    ],
)  # fmt: skip
def test_other_content_types_are_malformed(content_type: str) -> None:
    with pytest.raises(MalformedUpload):
        content(upload(part(b"x") + END, content_type, QUERY_STRING="name=a.jpg"))


@pytest.mark.parametrize("content_type", ["image/jpeg", "VIDEO/mp4", "application/octet-stream; x=y"])
def test_a_raw_body_is_the_file(content_type: str) -> None:
    raw = upload(b"bytes", content_type, QUERY_STRING="x=1&name=b%C3%A9.jpg")
    assert raw.name == "bé.jpg"
    assert raw.declared_bytes == 5
    assert content(raw) == b"bytes"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename=a.jpg", "a.jpg"),
        ('attachment; filename="a b.jpg"', "a b.jpg"),
        ('attachment; filename="a\\"b.jpg"', 'a"b.jpg'),
        ("attachment; filename*=UTF-8''%e2%82%ac.jpg", "€.jpg"),
        ("attachment; filename*=utf-8'de'%c3%a4.jpg; filename=\"plain.jpg\"", "ä.jpg"),
        ("attachment; filename=\"plain.jpg\"; filename*=iso-8859-1''%e4.jpg", "ä.jpg"),
        ("attachment; filename=\"x; filename*=UTF-8''y.jpg\"", "x; filename*=UTF-8''y.jpg"),
        ('attachment; filename="filename=a.jpg"', "filename=a.jpg"),
        ('attachment; FileName="C:\\dir\\a.jpg"', "C:\\dir\\a.jpg"),
        ('attachment; filename="../../a.jpg"', "../../a.jpg"),
        ("attachment; filename=\"" + "ä€.jpg".encode().decode("latin-1") + '"', "ä€.jpg"),
        ('attachment; filename="\xe4.jpg"', "ä.jpg"),
        ("attachment; filename=\"" + "n" * 4096 + '.jpg"', "n" * 4096 + ".jpg"),
    ],
)  # fmt: skip
def test_the_name_is_read_alike_from_a_head_and_from_a_part(disposition: str, name: str) -> None:
    assert upload(b"x", "image/jpeg", HTTP_CONTENT_DISPOSITION=disposition, QUERY_STRING="name=other").name == name
    form_disposition = disposition.replace("attachment", 'form-data; name="file"')
    assert upload(part(b"x", form_disposition) + END).name == name


@pytest.mark.parametrize("query", ["", "name=", "names=a.jpg", "name"])
@pytest.mark.parametrize("disposition", ["", "attachment", 'attachment; filename=""', 'attachment; filename="a.jpg'])
def test_a_raw_body_without_a_name_is_malformed(query: str, disposition: str) -> None:
    with pytest.raises(MalformedUpload, match="file name"):
        upload(b"x", "image/jpeg", QUERY_STRING=query, HTTP_CONTENT_DISPOSITION=disposition)


@given(disposition=st.text(st.characters(max_codepoint=255)), query=st.text(st.characters(max_codepoint=255)))
def test_any_name_is_taken_or_refused_but_never_breaks(disposition: str, query: str) -> None:
    header = "attachment; filename" + disposition
    try:
        assert upload(b"x", "image/jpeg", HTTP_CONTENT_DISPOSITION=header, QUERY_STRING="name=" + query).name
    except MalformedUpload:
        return


@pytest.mark.parametrize("length", ["-1", "+1", "1_0", "ten", "²", "1, 1", "0x1"])
def test_a_length_that_is_no_number_is_malformed(length: str) -> None:
    with pytest.raises(MalformedUpload, match="Content-Length"):
        upload(b"x", "image/jpeg", QUERY_STRING="name=a.jpg", CONTENT_LENGTH=length)


@pytest.mark.parametrize("length", ["", "0"])
def test_a_request_without_a_body_is_malformed(length: str) -> None:
    with pytest.raises(MalformedUpload, match="empty"):
        content(upload(b"", "image/jpeg", QUERY_STRING="name=a.jpg", CONTENT_LENGTH=length))


@pytest.mark.parametrize(("body", "content_type"), [(part(b"x") + END, FORM), (b"bytes", "image/jpeg")])
def test_a_body_shorter_than_declared_is_malformed_under_any_server(body: bytes, content_type: str) -> None:
    declared = str(len(body) + 1)
    with pytest.raises(MalformedUpload, match="cut off"):
        content(upload(body, content_type, QUERY_STRING="name=a.jpg", CONTENT_LENGTH=declared))


class Unread:
    def read(self, size: int) -> bytes:
        raise AssertionError(f"{size} bytes of a body were read that was already refused")


def test_a_declared_size_beyond_the_limit_is_refused_before_anything_is_read() -> None:
    for content_type, length in (("image/jpeg", 101), (FORM, 101 + MAX_FORM_OVERHEAD)):
        environ = {"wsgi.input": Unread(), "CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(length)}
        with pytest.raises(MediaTooLarge):
            open_upload(environ | {"QUERY_STRING": "name=a.jpg"}, max_bytes=100, idle_timeout=30.0)


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
def test_the_limit_is_one_for_every_framing(size: int, fits: bool) -> None:
    form = part(bytes(size)) + END
    for body, content_type in (
        (form, FORM),
        (Dribble(iter([form])), FORM),
        (Dribble(iter([bytes(size)])), "image/png"),
    ):
        taken = upload(body, content_type, max_bytes=100, QUERY_STRING="name=a.png")
        if fits:
            assert len(content(taken)) == size
        else:
            with pytest.raises(MediaTooLarge):
                content(taken)


@pytest.mark.parametrize("content_type", [FORM, "video/mp4"])
def test_memory_does_not_grow_with_the_file(content_type: str) -> None:
    megabyte = bytes(range(256)) * 4096
    pieces = [part(b"")[:-2], *[megabyte] * 64, b"\r\n" + END]
    tracemalloc.start()
    body = upload(Dribble(iter(pieces)), content_type, QUERY_STRING="name=a.mp4")
    received = sum(len(chunk) for chunk in body.chunks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received >= 64 << 20
    assert peak < 3 << 20
