"""Server-sent events of one media: what changed since the last look, until no run of it is under way.

The database is asked, not this process, so a stream tells the same wherever the run is worked on, and an id says all
that another process needs to go on from there: `<run>.<the epoch of its results>.<frames told>`. A run that begins anew
after a crash has another epoch; the next `annotations` then say `restart`: what was told of that run is void.
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

LOOK_EVERY = 0.25
HEARTBEAT_EVERY = 15.0
FRAMES_AT_ONCE = 50
"""In one event, so that neither a reader nor this process has to hold the result of a long video."""

_ID = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Position:
    """How much of which try of a run has been told."""

    run_id: int = 0
    epoch: int = 0
    frames: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The position that an id holds; the beginning for one that is none of ours, as for none at all."""
        parts = _ID.fullmatch(text or "")
        return cls(*map(int, parts.groups())) if parts else cls()

    def __str__(self) -> str:
        return f"{self.run_id}.{self.epoch}.{self.frames}"

    def has_all_of(self, run: DetectionRun) -> bool:
        return self.is_in(run) and self.frames == run.frames_done

    def is_in(self, run: DetectionRun) -> bool:
        """What was told is of the try that this run is at now."""
        return (self.run_id, self.epoch) == (run.id, run.results_epoch) and self.frames <= run.frames_done


def stream(services: Services, media_id: str, last_event_id: str | None) -> Iterator[str]:
    """`status`, `progress` and `annotations` as they come, and `done` at the end; a comment where nothing happens.

    Ends without `done` where this process is about to end: the reader asks again, and another process goes on.
    """
    follower = Follower(media_id, Position.parse(last_event_id))
    spoken = time.monotonic()
    while services.is_serving():
        events = services.queries.fetch(follower.look)
        if events:
            spoken = time.monotonic()
            yield "".join(events)
        elif time.monotonic() - spoken >= HEARTBEAT_EVERY:
            spoken = time.monotonic()
            yield ": still here\n\n"
        if follower.has_ended:
            return
        if not follower.is_behind:
            time.sleep(LOOK_EVERY)


class Follower:
    """What one reader has been told, and so what is new to it."""

    def __init__(self, media_id: str, position: Position) -> None:
        self._media_id = media_id
        self._position = position
        self._status: int | None = None
        self._progress: dict[str, Any] | None = None
        self.has_ended = False
        self.is_behind = False
        """There is more to tell than one event holds."""

    def look(self, session: Session) -> list[str]:
        """The events that tell what is new."""
        return list(self._look(session))

    def _look(self, session: Session) -> Iterator[str]:
        seen = media_items.progress(session, self._media_id)
        run = self._followed(session, seen.run)
        if seen.media_status != self._status:
            self._status = seen.media_status
            yield self._event("status", {"mediaStatus": self._status})
        if run is not None:
            yield from self._tell(session, run)
        self.is_behind = run is not None and not (run is seen.run and self._position.has_all_of(run))
        if not self.is_behind and (run is None or run.state in (RunState.DONE, RunState.FAILED)):
            self.has_ended = True
            yield self._event("done", serializers.media(media_items.view(session, self._media_id)))

    def _followed(self, session: Session, last: DetectionRun | None) -> DetectionRun | None:
        """The media's last run, but first whatever is still to be told of the one before."""
        if last is None or self._position.run_id in (0, last.id):
            return last
        before = session.get(DetectionRun, self._position.run_id)
        if before is None or before.media_id != self._media_id or self._position.has_all_of(before):
            return last
        return before

    def _tell(self, session: Session, run: DetectionRun) -> Iterator[str]:
        restart = False
        if not self._position.is_in(run):
            restart = self._position.run_id == run.id and self._position.frames > 0
            self._position = Position(run.id, run.results_epoch)
        progress = serializers.run(run)
        if progress is not None and progress != self._progress:
            self._progress = progress
            yield self._event("progress", progress)
        first, end = self._position.frames, min(run.frames_done, self._position.frames + FRAMES_AT_ONCE)
        found = (
            serializers.detections(media_items.results(session, run.id, first=first, end=end)) if end > first else []
        )
        self._position = replace(self._position, frames=end)
        if found or restart:
            yield self._event("annotations", {"runId": run.id, "restart": restart, "annotations": found})

    def _event(self, name: str, data: dict[str, Any]) -> str:
        return f"id: {self._position}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
