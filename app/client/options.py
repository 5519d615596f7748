"""What a client wants done with a file once the service has it."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """Whether objects are detected, above which confidence (a fraction), in a frame every so many seconds of a video,
    and in a new run even where there is a result; None leaves the choice to the service."""

    detect: bool = True
    confidence: float | None = None
    frame_interval: float | None = None
    rerun: bool = False

    def parameters(self) -> dict[str, str]:
        """As the query of a request that detects."""
        return dict(self._told())

    def metadata(self, name: str) -> str:
        """As `Upload-Metadata`, together with the file's name; bytes of the name that are not UTF-8 become U+FFFD."""
        # A tus client says UTF-8, and a file of an old disk or camera may be named in another encoding.
        told = {"filename": os.fsencode(name).decode(errors="replace"), "detect": str(self.detect).lower()}
        pairs = (told | self.parameters()).items()
        return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs)

    def _told(self) -> Iterator[tuple[str, str]]:
        if not self.detect:
            return
        if self.confidence is not None:
            yield "confidence", str(self.confidence)
        if self.frame_interval is not None:
            yield "frameInterval", str(self.frame_interval)
        if self.rerun:
            yield "rerun", "true"
