"""A client of resumable uploads (tus 1.0.0) whose link breaks where it is told to: with a reset, in the middle of a
body."""

import base64
import hashlib
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from app.demo.process import StepFailed

_PATIENCE_SECONDS = 60.0
_PIECE_BYTES = 1 << 20


class ResumableClient:
    """Sends one file without having it detected. `sent` is how many of its bytes have left in all."""

    def __init__(self, url: str, token: str, file: Path) -> None:
        self._address = urlsplit(url).netloc
        self._fields = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}
        self._file = file
        self._upload = "/uploads"
        self.size = file.stat().st_size
        self.sent = 0

    def create(self) -> None:
        """Ask for a new upload."""
        name = base64.b64encode(self._file.name.encode()).decode()
        fields = {"Upload-Length": str(self.size), "Upload-Metadata": f"filename {name},detect ZmFsc2U="}
        with self._ask("POST", self._upload, 201, fields) as answer:
            self._upload = answer.headers["Location"]

    def offset(self) -> int:
        """How many bytes the service has, as HEAD tells."""
        with self._ask("HEAD", self._upload, 200) as answer:
            return int(answer.headers["Upload-Offset"])

    @contextmanager
    def broken_behind(self, offset: int, end: int) -> Iterator[None]:
        """Send the rest of the file from `offset` on as one part, but only up to `end`; behind the block the link
        breaks."""
        connection = self._begin_part(offset, end)
        yield
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        connection.close()

    def finish(self, offset: int) -> str:
        """Send the rest; returns the media item's address."""
        connection = self._begin_part(offset, self.size)
        answer = connection.getresponse()
        told = answer.read().decode()
        connection.close()
        if answer.status != 204:
            raise StepFailed(f"the last part was answered {answer.status}: {told.strip()}")
        return answer.headers["Content-Location"]

    def digest(self, media: str) -> str:
        """The SHA-256 of what the service gives back."""
        digest = hashlib.sha256()
        with self._ask("GET", f"{media}/content", 200) as answer:
            while piece := answer.read(_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def _begin_part(self, offset: int, end: int) -> HTTPConnection:
        connection = HTTPConnection(self._address, timeout=_PATIENCE_SECONDS)
        connection.putrequest("PATCH", self._upload)
        part = {"Content-Type": "application/offset+octet-stream", "Content-Length": str(self.size - offset)}
        for name, value in (self._fields | part | {"Upload-Offset": str(offset)}).items():
            connection.putheader(name, value)
        connection.endheaders()
        with self._file.open("rb") as content:
            self.sent += connection.sock.sendfile(content, offset, end - offset)
        return connection

    @contextmanager
    def _ask(
        self, method: str, path: str, expected: int, fields: dict[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        connection = HTTPConnection(self._address, timeout=_PATIENCE_SECONDS)
        try:
            connection.request(method, path, headers=self._fields | (fields or {}))
            answer = connection.getresponse()
            if answer.status != expected:
                raise StepFailed(f"{method} {path} answered {answer.status}: {answer.read().decode().strip()}")
            yield answer
        finally:
            connection.close()
