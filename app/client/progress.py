"""The interface for reporting an upload's progress."""

from typing import Protocol


class Progress(Protocol):
    """Receives an upload's progress. Its methods must not raise."""

    def sent(self, count: int) -> None:
        """`count` bytes from the file's start were sent; 0 when it starts again."""

    def resumed(self, offset: int) -> None:
        """The upload continues after `offset` bytes that the service already has."""

    def waits(self, reason: str, seconds: float) -> None:
        """An attempt failed; the next one starts in `seconds`."""
