"""Server-sent events of one media item, until no run of it is under way.

Events come from the database, so they are the same in every process. An event's id contains all that another process
needs to continue: `<run>.<epoch of its results>.<frames sent>`. A run that starts again after a crash has another
epoch; its next `annotations` event has `restart`, which invalidates the run's earlier events.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from flask import json
from sqlalchemy.orm import Session

from app import serializers
from app.database.models import DetectionRun, RunState
from app.queries import media_items
from app.services import Services

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
MAX_FRAMES = 50
"""The most frames per event, so that the result of a long video is never in memory as a whole."""

_ID = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Position:
    """How much of which attempt of a run was sent."""

    run_id: int = 0
    epoch: int = 0
    frames: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the position of an event id; the start for None and for foreign ids."""
        parts = _ID.fullmatch(text or "")
        return cls(*map(int, parts.groups())) if parts else cls()

    def __str__(self) -> str:
        return f"{self.run_id}.{self.epoch}.{self.frames}"

    def has_all_of(self, run: DetectionRun) -> bool:
        """Return whether all frames of the run were sent."""
        return self.belongs_to(run) and self.frames == run.frames_done

    def belongs_to(self, run: DetectionRun) -> bool:
        """Return whether the events sent belong to the run's current attempt."""
        return (self.run_id, self.epoch) == (run.id, run.results_epoch) and self.frames <= run.frames_done


def stream(services: Services, media_id: str, last_event_id: str | None) -> Iterator[str]:
    """Yield `status`, `progress` and `annotations` events, `done` at the end, and comments as heartbeats.

    Ends without `done` if this process is about to stop; the client reconnects and another process continues.
    """
    follower = Follower(media_id, Position.parse(last_event_id))
    last_sent = time.monotonic()
    while services.is_serving():
        events = services.queries.fetch(follower.new_events)
        if events:
            last_sent = time.monotonic()
            yield "".join(events)
        elif time.monotonic() - last_sent >= HEARTBEAT_SECONDS:
            last_sent = time.monotonic()
            yield ": heartbeat\n\n"
        if follower.has_ended:
            return
        if not follower.is_behind:
            time.sleep(POLL_SECONDS)


class Follower:
    """Tracks what one client was sent, and determines what is new."""

    def __init__(self, media_id: str, position: Position) -> None:
        self._media_id = media_id
        self._position = position
        self._status: int | None = None
        self._progress: dict[str, Any] | None = None
        self.has_ended = False
        self.is_behind = False
        """Whether there is more to send than one event holds."""

    def new_events(self, session: Session) -> list[str]:
        """Return the new events."""
        return list(self._new_events(session))

    def _new_events(self, session: Session) -> Iterator[str]:
        current = media_items.progress(session, self._media_id)
        run = self._run_to_send(session, current.run)
        if current.media_status != self._status:
            self._status = current.media_status
            yield self._event("status", {"mediaStatus": self._status})
        if run is not None:
            yield from self._run_events(session, run)
        self.is_behind = run is not None and not (run is current.run and self._position.has_all_of(run))
        if not self.is_behind and (run is None or run.state in (RunState.DONE, RunState.FAILED)):
            self.has_ended = True
            yield self._event("done", serializers.media(media_items.view(session, self._media_id)))

    def _run_to_send(self, session: Session, last: DetectionRun | None) -> DetectionRun | None:
        """Return the last run, or the one before if not all of its frames were sent."""
        if last is None or self._position.run_id in (0, last.id):
            return last
        before = session.get(DetectionRun, self._position.run_id)
        if before is None or before.media_id != self._media_id or self._position.has_all_of(before):
            return last
        return before

    def _run_events(self, session: Session, run: DetectionRun) -> Iterator[str]:
        restart = False
        if not self._position.belongs_to(run):
            restart = self._position.run_id == run.id and self._position.frames > 0
            self._position = Position(run.id, run.results_epoch)
        progress = serializers.run(run)
        if progress is not None and progress != self._progress:
            self._progress = progress
            yield self._event("progress", progress)
        first, end = self._position.frames, min(run.frames_done, self._position.frames + MAX_FRAMES)
        annotations = (
            serializers.detections(media_items.results(session, run.id, first=first, end=end)) if end > first else []
        )
        self._position = replace(self._position, frames=end)
        if annotations or restart:
            yield self._event("annotations", {"runId": run.id, "restart": restart, "annotations": annotations})

    def _event(self, name: str, data: dict[str, Any]) -> str:
        return f"id: {self._position}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
