"""The queue of in-memory jobs: bounded, and users take turns."""

import os
from pathlib import Path

import pytest

from app.detection.protocol.requests import Job, OpenFile
from app.errors import Unavailable
from app.runs.in_memory import BoundedQueue, WaitingJob


def waiting() -> WaitingJob:
    return WaitingJob(Job(Path("picture.jpg"), "Image"))


def test_users_take_turns_and_each_comes_in_the_order_asked() -> None:
    line = BoundedQueue(10)
    ada, bob = [waiting() for _ in range(4)], [waiting() for _ in range(2)]
    for user, jobs in (("ada", ada), ("bob", bob)):
        for job in jobs:
            line.put(user, job)
    taken = [line.take() for _ in range(7)]
    expected = [ada[0], bob[0], ada[1], bob[1], ada[2], ada[3], None]
    assert [id(job) for job in taken] == [id(job) for job in expected]


def test_whoever_comes_again_stands_behind_those_who_wait() -> None:
    line = BoundedQueue(10)
    first, second, third = waiting(), waiting(), waiting()
    line.put("ada", first)
    assert line.take() is first
    line.put("bob", second)
    line.put("ada", third)
    assert line.take() is second
    assert line.take() is third


def test_a_full_queue_takes_no_more_of_those_who_filled_it_until_one_has_left() -> None:
    queue = BoundedQueue(2)
    queue.put("ada", waiting())
    queue.put("ada", waiting())
    with pytest.raises(Unavailable):
        queue.ensure_capacity("ada")
    with pytest.raises(Unavailable):
        queue.put("ada", waiting())
    queue.ensure_capacity("bob")
    queue.put("bob", waiting())  # who has nothing waiting is never refused for what others have
    with pytest.raises(Unavailable):
        queue.ensure_capacity("bob")
    with pytest.raises(Unavailable):
        queue.put("bob", waiting())
    for _ in range(2):
        assert queue.take()
    queue.ensure_capacity("ada")
    queue.put("ada", waiting())


def test_an_open_file_is_the_job_s_own_from_the_moment_it_waits(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"a picture")
    with (tmp_path / "picture").open("rb") as file:
        job = WaitingJob(Job(OpenFile(file.fileno()), "Image"))
    assert isinstance(job.job.source, OpenFile)
    assert os.read(job.job.source.fd, 100) == b"a picture"
    job.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(job.job.source.fd, 100)
