"""Cursors of lists: the position of a page's last item, as a text for URLs that is parsed back exactly."""

import re
from dataclasses import dataclass
from typing import Self

from app.errors import MalformedUpload
from app.media.hashing import MEDIA_ID

_TEXT = re.compile(rf"([a-z]+)_(0x[01]\.[0-9a-f]{{1,13}}p-?[0-9]{{1,3}})_({MEDIA_ID.pattern})_([0-9]{{1,9}})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position after an item of the list `of`: its time in seconds since 1970, media id and sequence number."""

    of: str
    at: float
    media_id: str
    seq: int = 0

    def __str__(self) -> str:
        at = self.at.hex().replace("+", "")  # a plus sign means a space in a URL
        return f"{self.of}_{at}_{self.media_id}_{self.seq}"

    @classmethod
    def parse(cls, of: str, text: str) -> Self:
        """Parse a cursor of the list `of`. Raises MalformedUpload for any other text."""
        parts = _TEXT.fullmatch(text)
        if parts is None or parts[1] != of:
            raise MalformedUpload(f"cursor must be the nextCursor of a page of this list, not {text[:80]!r}.")
        return cls(of, float.fromhex(parts[2]), parts[3], int(parts[4]))
