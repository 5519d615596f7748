"""Jobs that have no row: pictures held in memory for clients that wait, in a short line in which users take turns."""

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from app.detection.jobs import Job
from app.detection.results import FrameResult
from app.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Found:
    """What a job gave, and what is missing of its picture."""

    results: list[FrameResult]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Waiting:
    """A job, and where its result goes; cancelled where its client no longer waits."""

    job: Job
    result: Future[Found] = field(default_factory=Future)


class Line:
    """At most `places` jobs wait. Safe to use from several threads."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._guard = threading.Lock()
        self._users: OrderedDict[str, deque[Waiting]] = OrderedDict()

    def join(self, user: str, waiting: Waiting) -> None:
        """Wait behind the user's other jobs; raises Unavailable where every place is taken."""
        with self._guard:
            self._check_room()
            self._users.setdefault(user, deque()).append(waiting)

    def ensure_room(self) -> None:
        """Raise Unavailable where every place is taken now; none is kept for whoever asks."""
        with self._guard:
            self._check_room()

    def next(self) -> Waiting | None:
        """Take the oldest job of the user whose turn it is, who is last then; None where nobody waits."""
        with self._guard:
            if not self._users:
                return None
            user, jobs = self._users.popitem(last=False)
            waiting = jobs.popleft()
            if jobs:
                self._users[user] = jobs
            return waiting

    def _check_room(self) -> None:
        if sum(map(len, self._users.values())) >= self.places:
            raise Unavailable("Too many pictures are waiting for a detector; try again.", retry_after=2)
