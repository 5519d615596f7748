"""The line of pictures in memory: short, and nobody stands behind all of another's."""

from pathlib import Path

import pytest

from app.detection.in_memory import Line, Waiting
from app.detection.jobs import Job
from app.errors import Unavailable


def waiting() -> Waiting:
    return Waiting(Job(Path("picture.jpg"), "Image"))


def test_users_take_turns_and_each_comes_in_the_order_asked() -> None:
    line = Line(10)
    ada, bob = [waiting() for _ in range(4)], [waiting() for _ in range(2)]
    for user, jobs in (("ada", ada), ("bob", bob)):
        for job in jobs:
            line.join(user, job)
    taken = [line.next() for _ in range(7)]
    expected = [ada[0], bob[0], ada[1], bob[1], ada[2], ada[3], None]
    assert [id(job) for job in taken] == [id(job) for job in expected]


def test_whoever_comes_again_stands_behind_those_who_wait() -> None:
    line = Line(10)
    first, second, third = waiting(), waiting(), waiting()
    line.join("ada", first)
    assert line.next() is first
    line.join("bob", second)
    line.join("ada", third)
    assert line.next() is second
    assert line.next() is third


def test_a_full_line_takes_nobody_until_one_has_left() -> None:
    line = Line(2)
    line.join("ada", waiting())
    line.join("bob", waiting())
    with pytest.raises(Unavailable):
        line.ensure_room()
    with pytest.raises(Unavailable):
        line.join("cleo", waiting())
    assert line.next()
    line.ensure_room()
    line.join("cleo", waiting())
