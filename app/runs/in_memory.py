"""In-memory jobs: pictures with `persist=false`, in a bounded queue in which users take turns."""

import os
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from app.detection.protocol.requests import Job, OpenFile
from app.detection.results import FrameResult
from app.errors import Unavailable
from app.process.fair_share import has_capacity


@dataclass(frozen=True, slots=True)
class JobResult:
    """The results of a job, and warnings about what is missing from its picture."""

    results: list[FrameResult]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class WaitingJob:
    """A job with the future of its result, which is cancelled when its client stops waiting.

    An open file of the job is duplicated, because the client's descriptor may be closed before the job runs.
    """

    job: Job
    result: Future[JobResult] = field(default_factory=Future)

    def __post_init__(self) -> None:
        if isinstance(self.job.source, OpenFile):
            self.job = replace(self.job, source=OpenFile(os.dup(self.job.source.fd)))

    def close(self) -> None:
        """Close the file; to be called once, by whoever takes the job or fails to queue it."""
        if isinstance(self.job.source, OpenFile):
            os.close(self.job.source.fd)


class BoundedQueue:
    """A queue of `capacity` jobs; a full queue still takes jobs of users with less than an equal share. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._guard = threading.Lock()
        self._users: OrderedDict[str, deque[WaitingJob]] = OrderedDict()

    def put(self, user: str, waiting: WaitingJob) -> None:
        """Append a job to the user's jobs; raise Unavailable if the queue is full for this user."""
        with self._guard:
            self._check_capacity(user)
            self._users.setdefault(user, deque()).append(waiting)

    def ensure_capacity(self, user: str) -> None:
        """Raise Unavailable if `put` would now; no place is reserved."""
        with self._guard:
            self._check_capacity(user)

    def has_jobs_of_others(self, user: str) -> bool:
        """Whether jobs of other users wait."""
        with self._guard:
            return any(other != user for other in self._users)

    def take(self) -> WaitingJob | None:
        """Remove and return the oldest job of the user in turn; None if no job waits."""
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
