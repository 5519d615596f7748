"""Server-sent events of one media: what changed since the last look, until its run has ended.

The database is asked, not this process, so a stream tells the same wherever the run is worked on.
"""

import time
from collections.abc import Iterator
from typing import Any

from flask import json

from app import catalog, representation
from app.bootstrap import Services
from app.models import RunState

LOOK_EVERY = 0.25
HEARTBEAT_EVERY = 15.0


def stream(services: Services, media_id: str) -> Iterator[str]:
    """`status` at each change of it, `progress` of the run, and `done` at its end."""
    status: int | None = None
    progress: dict[str, Any] | None = None
    spoken = time.monotonic()
    while True:
        with services.database.reading() as session:
            view = catalog.view(session, media_id)
        run = representation.run(view.run)
        if view.media.media_status != status:
            status, spoken = view.media.media_status, time.monotonic()
            yield _event("status", {"mediaStatus": status})
        if run is not None and run != progress:
            progress, spoken = run, time.monotonic()
            yield _event("progress", run)
        if view.run is None or view.run.state in (RunState.DONE, RunState.FAILED):
            yield _event("done", representation.media(view))
            return
        if time.monotonic() - spoken >= HEARTBEAT_EVERY:
            spoken = time.monotonic()
            yield ": still here\n\n"
        time.sleep(LOOK_EVERY)


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
