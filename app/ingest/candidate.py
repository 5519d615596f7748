"""A received file and the row that it is to get."""

from dataclasses import dataclass
from pathlib import Path

from app.database.models import Media
from app.ingest.group_commit import InTransaction, PendingMedia
from app.storage import Incoming, same_content, translate_os_errors


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete, locked file in `.incoming/`, and the media row to create unless the id is recorded already."""

    incoming: Incoming
    media: Media
    request_id: str | None
    in_transaction: InTransaction

    @property
    def path(self) -> Path:
        """The final path, as in the row."""
        return Path(self.media.path)

    def to_pending(self) -> PendingMedia:
        """Return what is to be committed."""
        return PendingMedia(self.media, self.path.parent, self.request_id, self.in_transaction)

    def has_content_of(self, fd: int) -> bool:
        """Compare the file byte by byte with another open file."""
        with translate_os_errors(self.path):
            return same_content(self.incoming.fd, fd)
