"""One file in every framing of HTTP, and the places where a client may be cut off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.web.raw_client import TOKEN

BOUNDARY = b"------------------------8d0c5f6a1e2b4c3d"
FORM_TYPE = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n"
RAW_TYPE = b'Content-Type: image/jpeg\r\nContent-Disposition: attachment; filename="a.jpg"\r\n'


def form(content: bytes, *, name: str = "a.jpg") -> bytes:
    """Return a form as curl and browsers send it."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'.encode()
    return b"--%b\r\n%b\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (
        BOUNDARY,
        disposition,
        content,
        BOUNDARY,
    )


def chunked(body: bytes, size: int = 5000) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


@dataclass(frozen=True)
class Framing:
    """How a file becomes a request."""

    headers: bytes
    encode: Callable[[bytes], bytes]
    chunked: bool = False

    def body(self, content: bytes) -> bytes:
        encoded = self.encode(content)
        return chunked(encoded) if self.chunked else encoded

    def head(self, content: bytes, *, token: bytes = TOKEN, path: bytes = b"/upload") -> bytes:
        length = b"Content-Length: %d\r\n" % len(self.encode(content))
        length = b"Transfer-Encoding: chunked\r\n" if self.chunked else length
        return b"POST %b HTTP/1.1\r\nHost: test\r\n%b%b%b\r\n" % (path, token, self.headers, length)

    def request(self, content: bytes, *, token: bytes = TOKEN) -> bytes:
        return self.head(content, token=token) + self.body(content)

    def cuts(self, content: bytes) -> dict[str, int]:
        """Return the places in the body to stop at."""
        body = self.body(content)
        end = len(body)
        places = {"nothing came": 0, "in the data": end // 2, "one byte short": end - 1}
        if self.encode is form:
            places |= {"in the part's head": 60, "in the last boundary": body.rindex(BOUNDARY) + 10}
            # Only a chunked body is complete after the boundary; otherwise the last line end is missing.
            places["behind the last boundary"] = body.rindex(BOUNDARY) + len(BOUNDARY) + 2
        if self.chunked:
            places |= {"in a size line": 1, "before the last chunk": body.rindex(b"0\r\n\r\n")}
        return places


FRAMINGS: Mapping[str, Framing] = {
    "form": Framing(FORM_TYPE, form),
    "raw": Framing(RAW_TYPE, bytes),
    "chunked form": Framing(FORM_TYPE, form, chunked=True),
    "chunked raw": Framing(RAW_TYPE, bytes, chunked=True),
}
