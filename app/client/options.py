"""What the service should do with an uploaded file."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """Options of an upload; None leaves the choice to the service.

    `detect` starts a run, with detections of at least `confidence` (0..1) in a frame every `frame_interval` seconds of
    a video. `rerun` starts a new run even if there is a result.
    """

    detect: bool = True
    confidence: float | None = None
    frame_interval: float | None = None
    rerun: bool = False

    def parameters(self) -> dict[str, str]:
        """Return the query parameters of a detection request."""
        return dict(self._set_parameters())

    def metadata(self, name: str) -> str:
        """Return `Upload-Metadata` with the file's name; bytes that are not UTF-8 become U+FFFD."""
        # tus requires UTF-8, but names from old disks or cameras may use another encoding.
        values = {"filename": os.fsencode(name).decode(errors="replace"), "detect": str(self.detect).lower()}
        pairs = (values | self.parameters()).items()
        return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs)

    def _set_parameters(self) -> Iterator[tuple[str, str]]:
        if not self.detect:
            return
        if self.confidence is not None:
            yield "confidence", str(self.confidence)
        if self.frame_interval is not None:
            yield "frameInterval", str(self.frame_interval)
        if self.rerun:
            yield "rerun", "true"
