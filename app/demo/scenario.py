"""The demo's acts: uploads whose messages arrive at once, and through an outage; a large upload over a bad link."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from app.demo.client import Client
from app.demo.console import Console
from app.demo.environment import Environment
from app.demo.process import POLL_SECONDS, StepFailed
from app.demo.request_log import RequestLog
from app.demo.resumable_client import ResumableClient

PHOTOS = Path(__file__).with_name("media")
ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"
EXPECTED = [1, 2, 3]

_ARRIVAL_SECONDS = 20.0
_FLUSH_SECONDS = 30
_CALM_SECONDS = 2.5
_CALM_LOOKS = 8
_PROBE_SECONDS = 0.3
_MEGABYTE = 1_000_000
_VIDEO_BYTES = 200 * _MEGABYTE
_MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"

Detections = Sequence[dict[str, Any]]


class Scenario:
    """The acts, which play one after the other. `photos` are those that were uploaded, with what was found on them;
    `outage` is how many seconds the annotations service was away."""

    def __init__(self, environment: Environment, console: Console) -> None:
        self._environment = environment
        self._console = console
        self._client = Client(environment.service_url, environment.token())
        self._log = RequestLog(environment.annotations_url)
        self.photos: list[tuple[Path, Detections]] = []
        self.outage = 0.0

    @property
    def arrived(self) -> int:
        """How many messages the annotations service has accepted."""
        return sum(entry["applied"] for entry in self._log.seen)

    def set_up(self) -> None:
        """Start everything. Each act raises StepFailed, OSError or requests.RequestException, as this does."""
        console = self._console
        console.act("Setting up")
        console.begin("alembic upgrade head, on a new SQLite database")
        self._environment.migrate()
        console.begin("start the reference annotations service")
        self._environment.start_annotations()
        console.tell(self._environment.annotations_url)
        console.begin("start the service under gunicorn")
        self._environment.start_service()
        console.tell(self._environment.service_url)

    def upload(self) -> None:
        """A photo is uploaded, and its messages arrive at once."""
        console = self._console
        console.act("Act one: an upload becomes a stored file, a record, and statuses that arrive")
        console.begin(f"upload {ASTRONAUT.name} to POST /detect")
        console.began = time.time()
        beside = ThreadPoolExecutor(1)  # nobody waits for it: an interrupted upload ends with the service
        try:
            uploading = beside.submit(self._client.upload, ASTRONAUT)
            while not uploading.done():
                self._watch()
                time.sleep(POLL_SECONDS)
        finally:
            beside.shutdown(wait=False)
        answer = uploading.result()
        self._await_arrival(answer["media"]["id"])
        self._show(ASTRONAUT, answer)
        self._await_delivered(answer["media"]["id"])

    def upload_in_outage(self) -> None:
        """The same while the annotations service is away; its messages wait, and arrive after it."""
        console, environment = self._console, self._environment
        console.act("Act two: the same through an outage of the annotations service")
        console.begin("stop the annotations service")
        environment.stop_annotations()
        outage_began = time.monotonic()
        console.tell("connections to it are refused")
        console.begin(f"upload {CHELSEA.name} to POST /detect")
        began = time.monotonic()
        answer = self._client.upload(CHELSEA)
        console.tell(f"no different for the client, after {time.monotonic() - began:.2f} s:")
        self._show(CHELSEA, answer)
        media_id = answer["media"]["id"]
        console.begin("flask outbox status --json")
        self._show_backlog(media_id)
        console.begin("start the annotations service again")
        environment.start_annotations()
        self.outage = time.monotonic() - outage_began
        console.tell(f"it was away for {self.outage:.1f} s")
        self._flush()
        console.begin(f"ask GET /media/{media_id} how its messages fared")
        self._await_arrival(media_id)
        console.tell(f"delivery: {json.dumps(self._await_delivered(media_id))}")

    def check_order(self) -> None:
        """Hold the annotations service's log against what was promised."""
        self._console.begin("check the annotations service's whole log: every message once, in order, under one key")
        for media_id in {entry["mediaId"] for entry in self._log.seen if entry["applied"]}:
            applied = self._log.applied(media_id)
            numbers, keys = [entry["seq"] for entry in applied], {entry["idempotencyKey"] for entry in applied}
            if numbers != EXPECTED or len(keys) != len(EXPECTED):
                raise StepFailed(f"of {media_id} arrived the numbers {numbers} under {len(keys)} keys")
        self._console.tell(f"{self.arrived} messages, no violation")

    def resumable_upload(self) -> None:
        """A large file whose link breaks three times, and whose service is killed; no byte that arrived goes again."""
        console, environment = self._console, self._environment
        megabytes = _VIDEO_BYTES // _MEGABYTE
        console.act(f"An upload of {megabytes} MB that survives three cuts and a kill -9")
        console.begin(f"make a file of {megabytes} MB that begins like a video")
        video = environment.folder / "holiday.mp4"
        content = _MP4 + os.urandom(_VIDEO_BYTES - len(_MP4))
        video.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        client = ResumableClient(environment.service_url, environment.token(), video)
        console.begin("POST /uploads, then PATCH")
        client.create()
        for reach in (30, 80, 120):
            with client.broken_behind(client.offset(), reach * _MEGABYTE):
                console.tell(f"at {reach} MB the link breaks")
            self._tell_offset(client)
        console.begin("PATCH the rest, and kill -9 the service in the middle of it")
        with client.broken_behind(client.offset(), 130 * _MEGABYTE):
            environment.kill_service()
        console.tell("at 130 MB all its processes are gone; it is started again")
        environment.start_service()
        offset = self._tell_offset(client)
        console.begin("PATCH the rest")
        began = time.monotonic()
        media = client.finish(offset)
        console.tell(f"204 after {time.monotonic() - began:.1f} s: durable, recorded, Content-Location: {media}")
        console.tell(f"{client.sent / _MEGABYTE:.1f} MB were sent in all")
        console.begin(f"GET {media}/content")
        if client.digest(media) != digest:
            raise StepFailed("what comes back is not what was sent")
        console.tell(f"the same bytes, SHA-256 {digest[:16]}…")

    def _tell_offset(self, client: ResumableClient) -> int:
        offset = client.offset()
        self._console.tell(f"HEAD: Upload-Offset {offset:,}, so the next PATCH begins there")
        return offset

    def _show(self, photo: Path, answer: dict[str, Any]) -> None:
        media = answer["media"]
        detections = [found for frame in answer["annotations"] for found in frame["detections"]]
        self.photos.append((photo, detections))
        stored = [path.name for path in self._environment.images() if path.stem == media["id"]]
        self._console.tell(f"201, stored as {', '.join(stored)}, {media['sizeBytes']} bytes, of user {media['userId']}")
        self._console.detections(detections)

    def _show_backlog(self, media_id: str) -> None:
        """Show what waits, once the service has found the other side away, and will not try by itself for a moment."""
        self._wait_for_calm()
        status = json.loads(self._environment.flask("outbox", "status", "--json"))
        circuit = status["circuit"]
        self._console.tell(
            f"pending {status['pending']}, parked {status['parked']}, circuit {circuit['state']} ({circuit['reason']})"
        )
        delivery = self._client.media(media_id)["delivery"]
        self._console.tell(f"GET /media/{media_id}: {json.dumps(delivery)}")
        if status["pending"] != len(EXPECTED) or delivery["pending"] != len(EXPECTED):
            raise StepFailed(f"not all of its {len(EXPECTED)} messages wait")

    def _wait_for_calm(self) -> None:
        """Each attempt of the service makes the pause before the next one longer. Once a command fits in there, what
        arrives after it can be seen to be the command's doing."""
        administrator = Client(self._environment.service_url, self._environment.token(is_admin=True))
        for _ in range(_CALM_LOOKS):
            retry_at = administrator.outbox()["circuit"]["retryAt"]
            calm = 0.0 if retry_at is None else datetime.fromisoformat(retry_at).timestamp() - time.time()
            if calm > _CALM_SECONDS:
                return
            time.sleep(max(0.0, calm) + _PROBE_SECONDS)

    def _flush(self) -> None:
        self._console.begin("flask outbox flush --wait")
        self._console.began = time.time()
        command = ("outbox", "flush", "--wait", "--timeout", str(_FLUSH_SECONDS), "--json")
        report = json.loads(self._environment.flask(*command, meanwhile=self._watch))
        self._watch()
        self._console.tell(json.dumps(report))
        if not report["total"]:
            self._console.tell("nothing was left for it: the service had tried again by itself and got through first")

    def _watch(self) -> None:
        self._console.arrived(self._log.new())

    def _await_arrival(self, media_id: str) -> None:
        def has_arrived() -> bool:
            self._watch()
            return [entry["body"]["mediaStatus"] for entry in self._log.applied(media_id)] == EXPECTED

        _wait(has_arrived, f"its statuses {EXPECTED} arrived")

    def _await_delivered(self, media_id: str) -> dict[str, Any]:
        """Its delivery state, once the service knows too that everything has arrived."""
        _wait(lambda: not self._client.media(media_id)["delivery"]["pending"], "the service knows of their arrival")
        delivery: dict[str, Any] = self._client.media(media_id)["delivery"]
        return delivery


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StepFailed(f"more than {_ARRIVAL_SECONDS:g} s passed before {what}")
        time.sleep(POLL_SECONDS)
