"""One part of a resumable upload, as a request brings it, and the checksum that it may come with."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.errors import ChecksumMismatch, MalformedUpload

CHECKSUM_ALGORITHMS = ("sha1", "sha256")

Chunks = Iterable[bytes | memoryview]


class PartChecksum:
    """The checksum that a part should have; to be fed with the bytes as they come. Raises MalformedUpload where the
    header, `Upload-Checksum`, is not an algorithm of CHECKSUM_ALGORITHMS and a digest in base64."""

    def __init__(self, header: str) -> None:
        self._algorithm, _, encoded = header.strip().partition(" ")
        if self._algorithm not in CHECKSUM_ALGORITHMS:
            names = " or ".join(CHECKSUM_ALGORITHMS)
            raise MalformedUpload(f"Upload-Checksum must be of {names}, not {self._algorithm[:80]!r}.")
        try:
            self._expected = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error as error:
            raise MalformedUpload("Upload-Checksum is not base64.") from error
        self._digest: Any = hashlib.new(self._algorithm, usedforsecurity=False)

    def update(self, chunk: bytes | memoryview) -> None:
        """These bytes came."""
        self._digest.update(chunk)

    def check(self) -> None:
        """Raise ChecksumMismatch unless the bytes that came are those that were meant."""
        if self._digest.digest() != self._expected:
            raise ChecksumMismatch(f"The part's {self._algorithm} is another one than was sent; none of it counts.")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `offset` on, `size` of them where that is known before they come.

    `receive` gives them once, and calls what it is handed every second at least, also while no byte comes, until that
    raises. `length` is the whole file's, where the client tells it with this part.
    """

    offset: int
    receive: Callable[[Callable[[], None]], Chunks]
    size: int | None = None
    length: int | None = None
    checksum: PartChecksum | None = None
    request_id: str | None = None
