"""The promise, held against what a run of the service left behind (invariant I of docs/reliability.md)."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import requests
from PIL import Image

from app.media.hashing import media_id_of_bytes
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.service import Service


def photo(number: int) -> bytes:
    """A small photo unlike that of any other number."""
    picture = Image.new("RGB", (64, 48), (number % 256, number // 256 % 256, number // 65536 % 256))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@dataclass
class Uploads:
    """What was sent and what was promised in return."""

    promised: dict[str, bytes] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    cut_off: int = 0

    def send(self, service: Service, path: str, content: bytes) -> None:
        """Upload once; whatever comes of it is noted."""
        try:
            answer = service.upload(path, content, name="photo.png")
        except requests.RequestException:
            self.cut_off += 1
            return
        if answer.ok:
            self.promised[answer.json()["media"]["id"]] = content
        else:
            self.refused.append(answer.status_code)


def assert_kept(service: Service, annotations: ReferenceService, uploads: Iterable[Uploads]) -> None:
    """After recovery and a flush: every promise is kept, and nothing is there that was not promised to the other side.

    The service must be running, and everything drained.
    """
    promised = {media_id: content for some in uploads for media_id, content in some.promised.items()}
    recorded = _recorded(service)
    stored = {
        path.stem: path for folder in (service.images, service.videos) for path in folder.iterdir() if path.is_file()
    }
    assert promised.keys() <= recorded.keys()
    assert recorded.keys() <= stored.keys(), "a row without its file"
    for media_id, content in promised.items():
        assert stored[media_id].read_bytes() == content
    for media_id in recorded:
        assert media_id_of_bytes(stored[media_id].read_bytes()) == media_id
    assert service.leftovers() == []
    assert stored.keys() == recorded.keys(), "a file without a row"
    violations = check_log(annotations.log())
    assert not violations, f"{len(violations)} violations, the first: {violations[:5]}"
    told = {record["id"]: record["mediaStatus"] for record in annotations.records()}
    assert told == recorded
    verified = service.flask("outbox", "verify", "--json")
    assert verified.returncode == 0, verified.stdout


def settle(service: Service, *, seconds: float = 60) -> None:
    """Recover what a crash left, and deliver everything."""
    recovered = service.flask("media", "recover", "--json", timeout=120)
    assert recovered.returncode == 0, recovered.stderr
    flushed = service.flask("outbox", "flush", "--wait", "--timeout", str(seconds), "--json", timeout=seconds + 60)
    assert flushed.returncode == 0, flushed.stdout + flushed.stderr
    assert json.loads(flushed.stdout)["pending"] == 0


def _recorded(service: Service) -> dict[str, int]:
    recorded: dict[str, int] = {}
    cursor: str | None = None
    while True:
        options = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
        page = service.request("GET", "/media", params=options).json()
        recorded |= {item["id"]: item["mediaStatus"] for item in page["items"]}
        cursor = page["nextCursor"]
        if cursor is None:
            return recorded
