"""Uploads through a real gunicorn: every framing arrives completely or not at all, and keep-alive stays correct."""

import os
from pathlib import Path

import pytest
import xxhash

from tests.web.conftest import Server
from tests.web.raw_client import TOKEN, RawClient
from tests.web.upload.framings import FORM_TYPE, FRAMINGS, RAW_TYPE, Framing, form

PHOTO = os.urandom(200_000)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
CUTS = [(name, place) for name, framing in FRAMINGS.items() for place in framing.cuts(PHOTO)]

framings = pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS.keys())


def has_arrived(client: RawClient, content: bytes) -> bool:
    answer = client.answer()
    return answer.status == 200 and bool(answer.json()["xxh3"] == xxhash.xxh3_128_hexdigest(content))


@framings
def test_the_file_arrives_byte_by_byte(server: Server, framing: Framing) -> None:
    with server.connect() as client:
        client.send(framing.request(PHOTO))
        answer = client.answer()
    assert answer.status == 200
    assert answer.json() == {
        "name": "a.jpg",
        "length": len(PHOTO),
        "xxh3": xxhash.xxh3_128_hexdigest(PHOTO),
        "declared": None if framing.chunked else len(framing.body(PHOTO)),
    }


@pytest.mark.parametrize(("name", "place"), CUTS)
def test_a_body_that_is_cut_off_is_never_a_success(server: Server, name: str, place: str) -> None:
    framing = FRAMINGS[name]
    with server.connect() as client:
        client.send(framing.head(PHOTO) + framing.body(PHOTO)[: framing.cuts(PHOTO)[place]])
        client.end()
        assert client.answer().status == 400
        assert client.everything() == b""


@framings
def test_a_connection_takes_one_upload_after_another(server: Server, framing: Framing) -> None:
    with server.connect() as client:
        for content in (PHOTO, b"small", PHOTO[:70_000]):
            client.send(framing.request(content))
            assert has_arrived(client, content)


@framings
@pytest.mark.parametrize("content", [PHOTO, b"fits into what gunicorn buffers"], ids=["large", "small"])
def test_requests_pipelined_behind_an_upload_are_answered(server: Server, framing: Framing, content: bytes) -> None:
    with server.connect() as client:
        client.send(framing.request(content) + HEALTH + framing.request(b"second") + HEALTH)
        assert has_arrived(client, content)
        assert client.answer().json() == {"path": "/healthz"}
        assert has_arrived(client, b"second")
        assert client.answer().json() == {"path": "/healthz"}


def refused(headers: bytes, body: bytes) -> bytes:
    return b"POST /upload?name=a.jpg HTTP/1.1\r\nHost: test\r\n%b\r\n%b" % (headers, body)


def with_length(headers: bytes, body: bytes) -> bytes:
    return refused(headers + b"Content-Length: %d\r\n" % len(body), body)


BAD_FORM = b"not a boundary\r\n" + form(b"x").replace(b"--\r\n", b"??\r\n") + 4000 * SMUGGLED
REFUSALS = {
    "no token": (401, with_length(RAW_TYPE, SMUGGLED)),
    "no token, large": (401, with_length(RAW_TYPE, 20_000 * SMUGGLED)),
    "no token, chunked": (401, refused(RAW_TYPE + b"Transfer-Encoding: chunked\r\n", b"27\r\n" + SMUGGLED)),
    "unknown content type": (400, with_length(TOKEN + b"Content-Type: text/plain\r\n", SMUGGLED)),
    "malformed form": (400, with_length(TOKEN + FORM_TYPE, BAD_FORM * 8)),
    "bytes behind the form": (400, with_length(TOKEN + FORM_TYPE, form(PHOTO) + 20_000 * SMUGGLED)),
    "declared too large": (413, with_length(TOKEN + RAW_TYPE, SMUGGLED * 200_000)),
    "bad chunk": (400, refused(TOKEN + RAW_TYPE + b"Transfer-Encoding: chunked\r\n", b"zz\r\n" + SMUGGLED)),
    "chunks too large": (
        413,
        refused(TOKEN + RAW_TYPE + b"Transfer-Encoding: chunked\r\n", b"600000\r\n" + SMUGGLED * 170_000),
    ),
}


@pytest.mark.parametrize(("status", "request_bytes"), REFUSALS.values(), ids=REFUSALS.keys())
def test_bytes_of_a_refused_body_are_never_taken_for_a_request(
    server: Server, status: int, request_bytes: bytes
) -> None:
    with server.connect() as client:
        client.send(request_bytes + SMUGGLED)
        answer = client.answer()
        assert answer.status == status
        assert b"connection: close" in answer.head
        assert client.everything() == b""


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"X-Folded: a\r\n b\r\nContent-Length: 5\r\n",
        b"X-Bare: a\nContent-Length: 5\r\n",
        b"X-Bare: a\rContent-Length: 5\r\n",
        b"X-Nul: a\0\r\nContent-Length: 5\r\n",
        *(
            b"Content-Length: " + value + b"\r\n"
            for value in (b"", b"-5", b"0x5", b"5_0", b"\xb2", b"\xd9\xa5", b"5" * 5000)
        ),
    ],
)
def test_a_body_with_two_readings_is_refused(server: Server, headers: bytes) -> None:
    with server.connect() as client:
        client.send(refused(TOKEN + RAW_TYPE + headers, b"hello" + SMUGGLED))
        assert client.everything().startswith(b"HTTP/1.1 400 ")


BAD_CHUNKS = {
    "bare line feeds": b"5\nhello\n0\n\n",
    "a line feed in an extension": b"5;\nx\r\nhello\r\n0\r\n\r\n",
    "a line end in a quoted extension": b'5;a="\r\n\r\n"\r\nhello\r\n0\r\n\r\n',
    "an extension of a megabyte": b"5;" + b"x" * 1_000_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "more than the size": b"3\r\nhello\r\n0\r\n\r\n",
    "no end behind the data": b"5\r\nhello0\r\n\r\n",
    "a length in the trailers": b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a token in the trailers": b"5\r\nhello\r\n0\r\nAuthorization: x\r\n\r\n",
    "a hundred thousand trailers": b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_bytes_behind_malformed_chunks_are_never_taken_for_a_request(server: Server, chunks: bytes) -> None:
    with server.connect() as client:
        client.send(refused(TOKEN + RAW_TYPE + b"Transfer-Encoding: chunked\r\n", chunks + SMUGGLED))
        answer = client.answer()
        assert answer.status == 400
        assert b"connection: close" in answer.head
        assert client.everything() == b""


def test_extensions_and_trailers_are_read_and_left_out(server: Server) -> None:
    chunks = b'5;name="value";other\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n'
    with server.connect() as client:
        client.send(refused(TOKEN + RAW_TYPE + b"Transfer-Encoding: chunked\r\n", chunks + HEALTH))
        assert has_arrived(client, b"hello")
        assert client.answer().json() == {"path": "/healthz"}


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"gzip, identity", b"nonsense"])
def test_a_packed_body_is_refused_unread(server: Server, coding: bytes) -> None:
    with server.connect() as client:
        client.send(with_length(TOKEN + RAW_TYPE + b"Content-Encoding: " + coding + b"\r\n", SMUGGLED))
        assert client.answer().status == 415
        assert client.everything() == b""


@framings
def test_a_refused_client_that_waits_is_not_invited_to_send(server: Server, framing: Framing) -> None:
    with server.connect() as client:
        client.send(framing.head(PHOTO, token=b"Expect: 100-continue\r\n"))
        assert client.answer().status == 401
        assert client.everything() == b""


@framings
def test_an_accepted_client_that_waits_is_invited_once(server: Server, framing: Framing) -> None:
    with server.connect() as client:
        client.send(framing.head(PHOTO, token=TOKEN + b"Expect: 100-continue\r\n"))
        assert client.line() == b"HTTP/1.1 100 Continue"
        assert client.line() == b""
        client.send(framing.body(PHOTO))
        assert has_arrived(client, PHOTO)
        client.send(HEALTH)
        assert client.answer().status == 200


def test_the_services_live_as_long_as_their_worker(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", "--threads", "5")
    assert "services started with 5 threads" in server.log()
    assert server.stop() == 0
    assert server.log().count("services stopped") == 1
