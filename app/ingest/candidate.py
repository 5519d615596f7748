"""A received file and the row that it is to get."""

from dataclasses import dataclass
from pathlib import Path

from app.models import Media
from app.recorder import AndThen, Recording
from app.storage import Incoming, same_content, translate_os_errors

InTransaction = AndThen
"""Called with the connection and the media in the transaction that records a new media, to add to it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is whole, in `.incoming/`, locked; and the media that it becomes unless its id is known."""

    incoming: Incoming
    media: Media
    request_id: str | None
    in_transaction: InTransaction

    @property
    def path(self) -> Path:
        """The final name, which the row names."""
        return Path(self.media.path)

    def recording(self) -> Recording:
        """What is committed for it."""
        return Recording(self.media, self.path.parent, self.request_id, self.in_transaction)

    def has_content_of(self, fd: int) -> bool:
        """Compare byte by byte with another open file."""
        with translate_os_errors(self.path):
            return same_content(self.incoming.fd, fd)
