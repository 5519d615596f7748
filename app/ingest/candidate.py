"""A received file and the row that it is to get."""

from dataclasses import dataclass
from pathlib import Path

from app.database.models import Media
from app.ingest.group_commit import InTransaction, Recording
from app.storage import Incoming, same_content, translate_os_errors


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

    def as_recording(self) -> Recording:
        """What is committed for it."""
        return Recording(self.media, self.path.parent, self.request_id, self.in_transaction)

    def has_content_of(self, fd: int) -> bool:
        """Compare byte by byte with another open file."""
        with translate_os_errors(self.path):
            return same_content(self.incoming.fd, fd)
