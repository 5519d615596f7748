"""Cursors of lists: the place of a page's last item, in a text that fits a URL and is read back exactly."""

import re
from dataclasses import dataclass
from typing import Self

from app.errors import MalformedUpload
from app.media.hashing import MEDIA_ID

_TEXT = re.compile(rf"([a-z]+)_(0x[01]\.[0-9a-f]{{1,13}}p-?[0-9]{{1,3}})_({MEDIA_ID.pattern})_([0-9]{{1,9}})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place behind one item of the list `of`: what it is ordered by, in seconds since 1970, and what tells it from
    others of that time."""

    of: str
    at: float
    media_id: str
    seq: int = 0

    def __str__(self) -> str:
        at = self.at.hex().replace("+", "")  # a plus sign means a space in a URL
        return f"{self.of}_{at}_{self.media_id}_{self.seq}"

    @classmethod
    def parse(cls, of: str, text: str) -> Self:
        """The cursor that a page of that list gave; raises MalformedUpload for any other text."""
        parts = _TEXT.fullmatch(text)
        if parts is None or parts[1] != of:
            raise MalformedUpload(f"cursor {text[:80]!r} is not one that a page of this list gave.")
        return cls(of, float.fromhex(parts[2]), parts[3], int(parts[4]))
