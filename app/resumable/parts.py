"""One part of a resumable upload, as a PATCH request carries it, and its optional checksum."""

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
    """The expected checksum of a part, from an `Upload-Checksum` header, updated with the bytes as they arrive.

    Raises MalformedUpload unless the header is an algorithm of CHECKSUM_ALGORITHMS and a digest in base64.
    """

    def __init__(self, header: str) -> None:
        self._algorithm, _, encoded = header.strip().partition(" ")
        if self._algorithm not in CHECKSUM_ALGORITHMS:
            names = " or ".join(CHECKSUM_ALGORITHMS)
            raise MalformedUpload(f"Upload-Checksum must use {names}, not {self._algorithm[:80]!r}.")
        try:
            self._expected = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error as error:
            raise MalformedUpload("Upload-Checksum is not base64.") from error
        self._digest: Any = hashlib.new(self._algorithm, usedforsecurity=False)

    def update(self, chunk: bytes | memoryview) -> None:
        """Add received bytes."""
        self._digest.update(chunk)

    def check(self) -> None:
        """Raise ChecksumMismatch if the received bytes differ from those that were sent."""
        if self._digest.digest() != self._expected:
            raise ChecksumMismatch(
                f"The part's {self._algorithm} does not match Upload-Checksum; the part was discarded."
            )


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `offset` on; `size` is their number, None if unknown in advance.

    `receive` yields the bytes once. It calls its argument at least every second, also while no byte arrives, and stops
    when that raises. `length` is that of the whole file, if the client sends it with this part.
    """

    offset: int
    receive: Callable[[Callable[[], None]], Chunks]
    size: int | None = None
    length: int | None = None
    checksum: PartChecksum | None = None
    request_id: str | None = None
