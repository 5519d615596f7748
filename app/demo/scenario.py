"""The demo's two acts: an upload whose messages arrive at once, and one whose messages outlive an outage."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from app.demo.client import Client
from app.demo.console import Narration
from app.demo.environment import Stage
from app.demo.failure import StepFailed
from app.demo.ordering import check_log
from app.demo.request_log import Arrivals

PHOTOS = Path(__file__).with_name("media")
ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"
EXPECTED = [1, 2, 3]

_POLL_SECONDS = 0.02
_ARRIVAL_SECONDS = 20.0
_FLUSH_SECONDS = 30
_CALM_SECONDS = 2.5
_CALM_LOOKS = 8
_PROBE_SECONDS = 0.3

Result = TypeVar("Result")
Detections = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Performance:
    """What the acts brought about: each photo with its detections, and the length of the outage in seconds."""

    photos: Sequence[tuple[Path, Detections]]
    arrived: int
    outage: float


def perform(stage: Stage, show: Narration) -> Performance:
    """Set everything up and play both acts. Raises StepFailed, OSError or requests.RequestException."""
    show.act("Setting up")
    show.begin("alembic upgrade head, on a new SQLite database")
    stage.migrate()
    show.begin("start the reference annotations service")
    stage.start_annotations()
    show.tell(stage.annotations_url)
    show.begin("start the service under gunicorn")
    stage.start_service()
    show.tell(stage.service_url)
    acts = _Acts(stage, show)
    astronaut = acts.one()
    chelsea, outage = acts.two()
    acts.check_order()
    return Performance([(ASTRONAUT, astronaut), (CHELSEA, chelsea)], acts.arrived, outage)


class _Acts:
    """Both acts play before the same audience: one client, one log of arrivals."""

    def __init__(self, stage: Stage, show: Narration) -> None:
        self._stage = stage
        self._show = show
        self._client = Client(stage.service_url, stage.token())
        self._arrivals = Arrivals(stage.annotations_url)

    @property
    def arrived(self) -> int:
        return sum(entry["applied"] for entry in self._arrivals.seen)

    def one(self) -> Detections:
        self._show.act("Act one: an upload becomes a stored file, a record, and statuses that arrive")
        self._show.begin(f"upload {ASTRONAUT.name} to POST /detect")
        self._show.began = time.time()
        answer = self._while_watching(lambda: self._client.upload(ASTRONAUT))
        media_id = answer["media"]["id"]
        self._watch_until_complete(media_id)
        self._show_answer(answer)
        self._await_delivered(media_id)
        return _detections(answer)

    def two(self) -> tuple[Detections, float]:
        show = self._show
        show.act("Act two: the same through an outage of the annotations service")
        show.begin("stop the annotations service")
        self._stage.stop_annotations()
        outage_began = time.monotonic()
        show.tell("connections to it are refused")
        show.begin(f"upload {CHELSEA.name} to POST /detect")
        began = time.monotonic()
        answer = self._client.upload(CHELSEA)
        show.tell(f"no different for the client, after {time.monotonic() - began:.2f} s:")
        self._show_answer(answer)
        media_id = answer["media"]["id"]
        show.begin("flask outbox status --json")
        self._show_backlog(media_id)
        show.begin("start the annotations service again")
        self._stage.start_annotations()
        outage = time.monotonic() - outage_began
        show.tell(f"it was away for {outage:.1f} s")
        self._flush()
        show.begin(f"ask GET /media/{media_id} how its messages fared")
        self._watch_until_complete(media_id)
        show.tell(f"delivery: {json.dumps(self._await_delivered(media_id))}")
        return _detections(answer), outage

    def check_order(self) -> None:
        self._show.begin("check the annotations service's whole log: every message once, in order, under one key")
        violations = check_log(self._arrivals.seen)
        if violations:
            raise StepFailed("; ".join(violations))
        self._show.tell(f"{self.arrived} messages, no violation")

    def _show_answer(self, answer: dict[str, Any]) -> None:
        media = answer["media"]
        stored = [path.name for path in self._stage.images() if path.stem == media["id"]]
        self._show.tell(f"201, stored as {', '.join(stored)}, {media['sizeBytes']} bytes, of user {media['userId']}")
        self._show.detections(_detections(answer))

    def _show_backlog(self, media_id: str) -> None:
        """Show what waits, once the service has found the other side away, and will not try by itself for a moment."""
        self._wait_for_calm()
        status = self._flask_json("outbox", "status", "--json")
        circuit = status["circuit"]
        self._show.tell(
            f"pending {status['pending']}, parked {status['parked']}, circuit {circuit['state']} ({circuit['reason']})"
        )
        delivery = self._client.media(media_id)["delivery"]
        self._show.tell(f"GET /media/{media_id}: {json.dumps(delivery)}")
        if status["pending"] != len(EXPECTED) or delivery["pending"] != len(EXPECTED):
            raise StepFailed(f"not all of its {len(EXPECTED)} messages wait")

    def _wait_for_calm(self) -> None:
        """Each attempt of the service makes the pause before the next one longer. Once a command fits in there, what
        arrives after it can be seen to be the command's doing."""
        administrator = Client(self._stage.service_url, self._stage.admin_token())
        for _ in range(_CALM_LOOKS):
            calm = _seconds_until(administrator.outbox()["circuit"]["retryAt"])
            if calm > _CALM_SECONDS:
                return
            time.sleep(max(0.0, calm) + _PROBE_SECONDS)

    def _flush(self) -> None:
        self._show.begin("flask outbox flush --wait")
        self._show.began = time.time()
        command = ("outbox", "flush", "--wait", "--timeout", str(_FLUSH_SECONDS), "--json")
        report = self._flask_json(*command, meanwhile=self._watch)
        self._watch()
        self._show.tell(json.dumps(report))
        if not report["total"]:
            self._show.tell("nothing was left for it: the service had tried again by itself and got through first")

    def _await_delivered(self, media_id: str) -> dict[str, Any]:
        """Its delivery state, once the service knows too that everything has arrived."""
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        while True:
            delivery: dict[str, Any] = self._client.media(media_id)["delivery"]
            if not delivery["pending"]:
                return delivery
            if time.monotonic() > deadline:
                raise StepFailed(f"after {_ARRIVAL_SECONDS:g} s its delivery is still {json.dumps(delivery)}")
            time.sleep(_POLL_SECONDS)

    def _flask_json(self, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        outcome = self._stage.flask(*arguments, meanwhile=meanwhile)
        if outcome.exit_code != 0:
            raise StepFailed(f"it ended with exit code {outcome.exit_code}: {outcome.output.strip()}", outcome.process)
        document: dict[str, Any] = json.loads(outcome.output)
        return document

    def _watch(self) -> None:
        self._show.arrived(self._arrivals.new())

    def _while_watching(self, call: Callable[[], Result]) -> Result:
        with closing(_BesideThread()) as beside:
            future = beside.executor.submit(call)
            while not future.done():
                self._watch()
                time.sleep(_POLL_SECONDS)
            return future.result()

    def _watch_until_complete(self, media_id: str) -> None:
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        while (arrived := self._arrivals.statuses(media_id)) != EXPECTED:
            if time.monotonic() > deadline:
                raise StepFailed(f"of the statuses {EXPECTED} only {arrived} arrived within {_ARRIVAL_SECONDS:g} s")
            self._watch()
            time.sleep(_POLL_SECONDS)


class _BesideThread:
    """A thread beside the main one that nobody waits for: an interrupted upload ends with the service."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)

    def close(self) -> None:
        self.executor.shutdown(wait=False)


def _seconds_until(moment: str | None) -> float:
    """How far off a time of RFC 3339 is, in seconds; 0 for none."""
    return 0.0 if moment is None else datetime.fromisoformat(moment).timestamp() - time.time()


def _detections(answer: dict[str, Any]) -> Detections:
    return [found for frame in answer["annotations"] for found in frame["detections"]]
