"""Jobs that have no row: pictures of clients that wait, in a short queue in which users take turns."""

import os
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from app.detection.jobs import Job, OpenFile
from app.detection.results import FrameResult
from app.errors import Unavailable
from app.process.fair_share import has_capacity


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job gave, and what is missing of its picture."""

    results: list[FrameResult]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class WaitingJob:
    """A job, and where its result goes; cancelled where its client no longer waits.

    An open file of the job is duplicated: the client's may be closed before a detector comes to it.
    """

    job: Job
    result: Future[JobResult] = field(default_factory=Future)

    def __post_init__(self) -> None:
        if isinstance(self.job.source, OpenFile):
            self.job = replace(self.job, source=OpenFile(os.dup(self.job.source.fd)))

    def close(self) -> None:
        """Let go of the file; to be called once, by whoever takes the job or cannot queue it."""
        if isinstance(self.job.source, OpenFile):
            os.close(self.job.source.fd)


class BoundedQueue:
    """At most `capacity` jobs wait; beyond that only those of users who have less than an equal share waiting. Safe to
    use from several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._guard = threading.Lock()
        self._users: OrderedDict[str, deque[WaitingJob]] = OrderedDict()

    def join(self, user: str, waiting: WaitingJob) -> None:
        """Wait behind the user's other jobs; raises Unavailable where there is no room for this user."""
        with self._guard:
            self._check_capacity(user)
            self._users.setdefault(user, deque()).append(waiting)

    def ensure_capacity(self, user: str) -> None:
        """Raise Unavailable where `join` would now; no place is kept for whoever asks."""
        with self._guard:
            self._check_capacity(user)

    def has_jobs_of_others(self, user: str) -> bool:
        """Whether anybody but this user waits."""
        with self._guard:
            return any(other != user for other in self._users)

    def next(self) -> WaitingJob | None:
        """Take the oldest job of the user whose turn it is, who is last then; None where nobody waits."""
        with self._guard:
            if not self._users:
                return None
            user, jobs = self._users.popitem(last=False)
            waiting = jobs.popleft()
            if jobs:
                self._users[user] = jobs
            return waiting

    def _check_capacity(self, user: str) -> None:
        held = {name: len(jobs) for name, jobs in self._users.items()}
        if not has_capacity(self.capacity, held, user):
            raise Unavailable("Too many pictures are waiting for a detector; try again.", retry_after=2)
