"""One upload of a small file to a server with scripted responses, and its result."""

import json
from collections.abc import Callable
from pathlib import Path

from app.client.options import UploadOptions
from app.client.service import RemoteService
from app.client.unfinished import UnfinishedUploads
from app.client.upload import Result, Uploader
from app.media.checksum import checksum_of_bytes
from app.media.hashing import media_id_of_bytes
from tests.annotations.servers import Server, Step, answer

CONTENT = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40
ID = media_id_of_bytes(CONTENT)
CHECKSUM = checksum_of_bytes(CONTENT)
MISSING = answer(404, b"{}")
TOKEN = "a.good.token"


def record(**more: object) -> dict[str, object]:
    return {"id": ID, "sizeBytes": len(CONTENT), "checksum": CHECKSUM, "mediaStatus": 1, "run": None} | more


def document(content: object, status: int = 200) -> bytes:
    return answer(status, json.dumps(content).encode())


STORED = document({"media": record(), "duplicate": False}, 201)


class Observer:
    """Records the progress of an upload."""

    def __init__(self, on_bytes: Callable[[int], None] | None = None) -> None:
        self.counts: list[int] = []
        self.offsets: list[int] = []
        self.reasons: list[str] = []
        self._on_bytes = on_bytes

    def sent(self, count: int) -> None:
        self.counts.append(count)
        if self._on_bytes:
            self._on_bytes(count)

    def resumed(self, offset: int) -> None:
        self.offsets.append(offset)

    def waits(self, why: str, _seconds: float) -> None:
        self.reasons.append(why)


class Attempt:
    """An upload of CONTENT to a server with these responses; waits are recorded and not waited for."""

    def __init__(
        self,
        folder: Path,
        *steps: Step,
        detect: bool = False,
        part_bytes: int = len(CONTENT),
        options: UploadOptions | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ):
        self.path = folder / "photo.jpg"
        self.path.write_bytes(CONTENT)
        self.waits: list[float] = []
        self.told = Observer(on_bytes)
        with Server(*steps) as server, RemoteService(server.url, TOKEN, timeout=5) as service:
            uploader = Uploader(
                service,
                options or UploadOptions(detect=detect),
                attempts=3,
                unfinished=UnfinishedUploads(None),
                part_bytes=part_bytes,
                sleep=self.waits.append,
            )
            self.result: Result = uploader.upload(self.path, self.told)
            self.requests = [f"{request.method} {request.path}" for request in server.requests]
            self.sent = list(server.requests)
            self.last = server.requests[-1] if server.requests else None
