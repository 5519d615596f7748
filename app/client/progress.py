"""What is told of a file on its way, to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Told as an upload goes on; nothing may be raised."""

    def sent(self, count: int) -> None:
        """So many bytes from the file's start are on their way or there; 0 where it begins anew."""

    def resumed(self, offset: int) -> None:
        """The upload goes on behind this many bytes, which the service has already."""

    def waits(self, why: str, seconds: float) -> None:
        """An attempt failed, and the next one begins after so many seconds."""
