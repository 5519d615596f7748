"""Requests as nobody means them: strategies for their bytes, and a client that sends them and reads what comes back."""

import base64
import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import jwt
from hypothesis import strategies as st

from tests.system.service import SECRET

KNOWN = b"<known>"
"""Stands for the id of a media that is there."""

IMPOSSIBLE_DATES = (b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"Mon, 01 Jan 2020 00:00:00 +9999999999999")


@dataclass(frozen=True)
class Answer:
    """An answer, or none at all (status 0)."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def is_from_the_application(self) -> bool:
        """What gunicorn sends for the application names itself; its own refusals do not."""
        return "Server" in self.headers


@dataclass(frozen=True, repr=False)
class Request:
    """The bytes of a request; shown short, because a failing one is printed."""

    content: bytes

    def __repr__(self) -> str:
        head, _, body = self.content.partition(b"\r\n\r\n")
        return f"Request({head!r} + {body[:300]!r} of {len(body)} bytes)"


def send(url: str, request: bytes) -> Answer:
    """Send exactly these bytes, and nothing after them; read the first answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused and closed before the end: the answer is still to be read
        with http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode("latin-1")) as response:
            try:
                response.begin()
                return Answer(response.status, response.headers, response.read())
            except (http.client.HTTPException, ConnectionError):
                return Answer(0, http.client.HTTPMessage(), b"")


def request_of(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    """The bytes of a request; each header stands as it is given."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return method + b" " + target + b" HTTP/1.1\r\n" + lines + b"\r\n" + body


def authorized(**claims: object) -> tuple[bytes, bytes]:
    """The header with a signed token; claims may be such that it is refused all the same."""
    payload = {"sub": "mallory", "exp": int(time.time()) + 3600} | claims
    signed = jwt.PyJWS().encode(json.dumps(payload).encode(), SECRET)  # without the checks that other issuers lack
    return b"Authorization", b"Bearer " + signed.encode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


T = TypeVar("T")


def _mostly(usual: st.SearchStrategy[T], *others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """`usual` in three of four cases; one_of would count the branches of the others."""
    return st.sampled_from((*[usual] * 3 * len(others), *others)).flatmap(lambda chosen: chosen)


_latin1 = st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F))
_escapes = st.one_of(
    st.sampled_from(
        (
            *(
                b"",
                b"%",
                b"%zz",
                b"%00",
                b"%ff%fe",
                b"%ed%a0%80",
                b"%e2%80%ae",
                b"..",
                b"..%2f..%2fetc%2fpasswd",
                b"a" * 7000,
            ),
            *(b"nan", b"inf", b"-inf", b"-1", b"0", b"1", b"0.5", b"1e999", b"1e-999", b"1_0", b"%d9%a1", b"9" * 5000),
            *(b"true", b"FALSE", b"null", b"[]", b"Image", b"Video", b"3", b"a.jpg", b"a.mp4", b"%41" * 2000, b"nan_a"),
            *(
                b"media_0x1.0p%2B999_" + KNOWN + b"_0",
                b"media_0x1.0p%2B1024_" + KNOWN + b"_0",
                b"-0x1p-9_%00",
                KNOWN,
                b"0" * 16,
                b"V" + KNOWN,
            ),
        )
    ),
    st.text(max_size=20).map(lambda text: quote(text, safe="", errors="surrogatepass").encode()),
    st.binary(max_size=20).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw)),
)
_parameters = (b"confidence", b"frameInterval", b"rerun", b"persist", b"name", b"status", b"type", b"limit", b"cursor")
_queries = st.lists(
    st.builds(lambda name, value: name + b"=" + value, _mostly(st.sampled_from(_parameters), _escapes), _escapes),
    min_size=1,
    max_size=3,
).map(lambda pairs: b"?" + b"&".join(pairs))


def _of_media(start: bytes, ends: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    media_id = _mostly(st.just(KNOWN), _escapes)
    return st.builds(lambda media_id, end: start + media_id + end, media_id, st.sampled_from(ends))


_PARTS = (b"", b"/content", b"/content", b"/detections", b"/events", b"/", b"/content/..")
_routes = st.one_of(
    st.tuples(st.just(b"POST"), st.sampled_from((b"/detect", b"/media", b"/detect?persist=false"))),
    st.tuples(st.just(b"POST"), st.sampled_from((b"/detect?name=a.jpg", b"/media?name=a.mp4"))),
    st.tuples(st.just(b"POST"), _of_media(b"/detect/", (b"", b"/"))),
    st.tuples(st.just(b"GET"), st.just(b"/media")),
    st.tuples(st.sampled_from((b"GET", b"GET", b"HEAD")), _of_media(b"/media/", _PARTS)),
    st.tuples(
        st.sampled_from((b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"PROPFIND")),
        st.one_of(
            st.sampled_from(
                (b"/detect", b"/media", b"/healthz", b"/readyz", b"/metrics", b"/openapi.json", b"//media")
            ),
            st.lists(_escapes, max_size=5).map(lambda pieces: b"/" + b"/".join(pieces)),
        ),
    ),
)

_RANGES = (b"bytes=0-", b"bytes=-5", b"bytes=5-1", b"bytes=0-1,2-3", b"bytes=" + b"9" * 5000 + b"-", b"chars=1")
_NASTY_HEADERS = (
    *((b"Range", value) for value in _RANGES),
    *((name, date) for name in (b"If-Modified-Since", b"If-Unmodified-Since") for date in IMPOSSIBLE_DATES),
    *((b"If-Range", date) for date in IMPOSSIBLE_DATES),
    *((b"If-Match", value) for value in (b'"other"', b"*", b'W/"', b"," * 500)),
    *((b"Prefer", value) for value in (b"respond-async", b"wait=-1", b"," * 2000, b"respond-async;a=\xff")),
    *((b"Content-Disposition", value) for value in (b"attachment; filename=a.jpg", b'a; filename="\\', b"; ; =")),
    (b"Content-Disposition", b"attachment; filename*=utf-8''%ed%a0%80.jpg; filename*0*=x''%00"),
    (b"Content-Disposition", b'attachment; filename="' + b"../" * 1000 + b'a.jpg"'),
    (b"X-Request-Id", b"\xff\x80"),
    (b"Expect", b"100-continue"),
    (b"Content-Encoding", b"gzip"),
    (b"Connection", b"Upgrade, HTTP2-Settings"),
    (b"Upgrade", b"h2c"),
    (b"Forwarded", b"for=_hidden;proto=x"),
    (b"X-Forwarded-Proto", b"https"),
    (b"Cookie", b"=;;=\xff"),
)
_NAMES = (b"Range", b"If-Range", b"If-None-Match", b"If-Match", b"If-Modified-Since", b"Prefer", b"X-Request-Id")
_OTHER_NAMES = (b"Accept", b"Cookie", b"Content-Disposition", b"X-Other", b"Te", b"X-Forwarded-For", b"Date")
_headers = st.lists(
    st.one_of(st.sampled_from(_NASTY_HEADERS), st.tuples(st.sampled_from(_NAMES + _OTHER_NAMES), _latin1)), max_size=3
)

_DEEP_TOKEN = _base64(b'{"alg":' + b"[" * 5000) + b"." + _base64(b"{}") + b".x"
_bad_authorizations = st.one_of(
    st.sampled_from((b"", b"Bearer", b"Bearer ", b"Basic eDp5", b"Bearer a.b.c", b"Bearer " + _DEEP_TOKEN)),
    _latin1.map(lambda raw: b"Bearer " + raw),
).map(lambda value: (b"Authorization", value))
_odd_claims = st.builds(
    lambda claim, value: authorized(**{claim: value}),
    st.sampled_from(("sub", "exp", "nbf", "iat", "aud", "iss", "jti", "type", "fresh", "crit")),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers())),
)

_authorizations = _mostly(st.builds(authorized), _bad_authorizations, _odd_claims)

_files = st.one_of(
    st.binary(max_size=300).map(lambda rest: b"\xff\xd8\xff\xe0" + rest),
    st.binary(max_size=300).map(lambda rest: b"\0\0\0\x18ftypmp42" + rest),
    st.binary(max_size=50),
)
_deep_json = st.sampled_from((b"[", b'{"a":', b"[]")).map(lambda piece: piece[:1] * 50_000 + piece[1:] * 50_000)
_PART = b'--b\r\nContent-Disposition: form-data; name="file"; '
_forms = st.builds(
    lambda name, content, end: _PART + name + b"\r\n\r\n" + content + end,
    st.one_of(_latin1.map(lambda raw: b'filename="' + raw + b'.jpg"'), st.just(b"filename=a.mp4"), _latin1),
    _files,
    st.sampled_from(
        (b"\r\n--b--\r\n", b"\r\n--b--", b"\r\n--b", b"", b"\r\n--b--\r\n--b--", b"\r\n--b\r\n\r\n\r\n--b--")
    ),
)
_TYPES = (
    b"image/jpeg",
    b"video/mp4",
    b"application/octet-stream",
    b"application/json",
    b"multipart/form-data",
    b"image/",
)
_BOUNDARIES = (b"multipart/form-data; boundary=" + b"b" * 300, b"multipart/form-data; boundary*=x''b")
_typed_bodies = st.one_of(
    st.tuples(st.just(b"multipart/form-data; boundary=b"), _forms),
    st.tuples(st.sampled_from(_TYPES[:3]), _files),
    st.tuples(st.sampled_from(_TYPES), st.one_of(_files, _forms, _deep_json)),
    st.tuples(st.one_of(_latin1, st.sampled_from(_BOUNDARIES)), _forms),
)


def _framed(body: bytes, framing: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    right = b"%d" % len(body)
    lengths: dict[str, list[bytes]] = {
        "right": [right],
        "short": [b"%d" % (len(body) // 2)],
        "cut off": [b"%d" % (len(body) + 9)],
        "huge": [b"9" * 18],
        "absurd": [b"9" * 400],
        "negative": [b"-1"],
        "list": [right + b", " + right],
        "twice": [right, b"0"],
        "none": [],
    }
    if framing in lengths:
        return [(b"Content-Length", length) for length in lengths[framing]], body
    coding = b"gzip, chunked" if framing == "unknown coding" else b"chunked"
    headers = [(b"Transfer-Encoding", coding)] + ([(b"Content-Length", right)] if framing == "both" else [])
    if framing == "bad chunks":
        return headers, b"zz\r\n" + body
    return headers, (b"%x\r\n" % len(body) + body + b"\r\n" if body else b"") + b"0\r\n\r\n"


_allowed_framings = st.sampled_from(("right", "right", "chunked", "short", "cut off", "huge", "bad chunks", "none"))
_refused_framings = st.sampled_from(("absurd", "negative", "list", "twice", "both", "unknown coding"))
_refused_methods = st.sampled_from((b"get", b"A" * 30, b"\xff", b""))
_refused_headers = st.sampled_from(((b"Host", b"a b"), (b"Expect", b"the-impossible"), (b"X Y", b"z"), (b"", b"")))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A whole request, one in four with a head that should get no further than gunicorn.

    `KNOWN` in it stands for the id of a media that is there.
    """
    odd = draw(st.sampled_from(("method", "target", "header", "framing", *("",) * 12)))
    method, target = draw(_routes)
    query = draw(_mostly(_queries, st.just(b"")))
    target += query.replace(b"?", b"&") if b"?" in target else query
    target += draw(_latin1) if odd == "target" else b""
    content_type, body = draw(_typed_bodies)
    framing, framed = _framed(body, draw(_refused_framings if odd == "framing" else _allowed_framings))
    headers = [
        (b"Host", b"localhost"),
        draw(_authorizations),
        (b"Content-Type", content_type),
        *draw(_headers),
        *framing,
    ]
    headers += [draw(_refused_headers)] if odd == "header" else []
    return Request(request_of(draw(_refused_methods) if odd == "method" else method, target, headers, framed))
