"""Following a run: detections arrive as they are made, each once, from any process, after any interruption."""

import itertools
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.database.models import RunFailure
from app.media.hashing import media_id_of_bytes
from app.runs.claims import ClaimedRun
from app.runs.lifecycle import RunRequest
from tests.api.conftest import Api, picture, settings_in
from tests.outbox.statements import Counter
from tests.runs.conftest import frame

pytestmark = pytest.mark.slow

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5)
Event = tuple[str, str, dict[str, Any]]


class Followed:
    """A media item, its run as a worker would do it, and readers of its events."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.runs = api.services.runs
        api.upload("/media", picture(1))
        self.media_id = media_id_of_bytes(picture(1))

    def begin(self) -> ClaimedRun:
        self.runs.start_new(self.media_id, WANTED)
        return self.go_on()

    def go_on(self) -> ClaimedRun:
        claimed = self.runs.claim("a worker")
        assert claimed is not None
        return claimed

    def read(self, last_id: str | None = None, api: Api | None = None, user: str = "ada") -> Generator[Event]:
        """Yield the events as (id, name, data), one at a time."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        answer = (api or self.api).get(f"/media/{self.media_id}/events", user=user, headers=headers, buffered=False)
        assert answer.status_code == 200, answer.text
        with closing(answer):
            for chunk in answer.iter_encoded():
                for block in chunk.decode().strip().split("\n\n"):
                    fields = dict(line.split(": ", 1) for line in block.splitlines())
                    yield fields["id"], fields["event"], json.loads(fields["data"])


def frames_of(told: Event) -> list[int]:
    _id, name, data = told
    assert name == "annotations"
    return [annotation["frame"] for annotation in data["annotations"]]


def until(reader: Iterator[Event], name: str) -> Event:
    return next(told for told in reader if told[1] == name)


def all_frames(events: list[Event]) -> list[int]:
    return [number for told in events if told[1] == "annotations" for number in frames_of(told)]


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path, database_url: str) -> dict[str, str]:
    """Settings of an application on each database, in which only the test works on runs."""
    return settings_in(tmp_path / "application", sqlite_template, None, {"DATABASE_URL": database_url})


@pytest.fixture
def followed(settings: dict[str, str]) -> Iterator[Followed]:
    with closing(Api(settings)) as api:
        yield Followed(api)


@pytest.fixture
def other_process(settings: dict[str, str]) -> Iterator[Api]:
    with closing(Api(settings)) as api:
        yield api


def test_annotations_are_told_as_they_are_found(followed: Followed) -> None:
    claimed = followed.begin()
    reader = followed.read()
    assert next(reader)[1:] == ("status", {"mediaStatus": 2})
    assert next(reader)[2]["framesDone"] == 0
    followed.runs.record(claimed, [frame(0), frame(1, 0), frame(2, 2)], total=4, skipped=7)
    _id, name, progress = next(reader)
    assert name == "progress"
    assert progress["framesDone"] == 3
    assert progress["framesTotal"] == 4
    assert progress["packetsSkipped"] == 7
    told = next(reader)
    assert frames_of(told) == [0, 2]
    assert told[2]["runId"] == claimed.run_id
    assert told[2]["restart"] is False
    assert [len(annotation["detections"]) for annotation in told[2]["annotations"]] == [1, 2]
    followed.runs.finish(claimed, [frame(3)])
    rest = list(reader)
    assert [name for _id, name, _data in rest] == ["status", "progress", "annotations", "done"]
    assert frames_of(rest[2]) == [3]
    assert rest[3][2] == followed.api.get(f"/media/{followed.media_id}").json


def test_another_process_goes_on_behind_any_event(followed: Followed, other_process: Api) -> None:
    claimed = followed.begin()
    events: list[Event] = []
    reader = followed.read()
    for number in range(4):
        followed.runs.record(claimed, [frame(2 * number), frame(2 * number + 1)], total=9)
        events.append(until(reader, "annotations"))
    followed.runs.finish(claimed, [frame(8)])
    events.extend(reader)
    assert all_frames(events) == list(range(9))
    for at, (event_id, _name, _data) in enumerate(events):
        again = list(followed.read(event_id, other_process))
        assert all_frames(events[: at + 1]) + all_frames(again) == list(range(9)), event_id
        assert again[-1][1] == "done"


@pytest.mark.parametrize("nonsense", ["", "1", "a.b.c", "-1.0.0", "1.1.1.1", "9" * 40, "٣.١.١", "0.0.0", "7.1.1"])
def test_an_id_that_is_not_ours_counts_as_none(nonsense: str, followed: Followed) -> None:
    followed.runs.finish(followed.begin(), [frame(0)])
    assert all_frames(list(followed.read(nonsense))) == [0]


def test_a_result_too_long_for_one_event_comes_in_several(followed: Followed) -> None:
    followed.runs.finish(followed.begin(), [frame(number) for number in range(120)])
    events = list(followed.read())
    assert all_frames(events) == list(range(120))
    assert max(len(frames_of(told)) for told in events if told[1] == "annotations") <= 50


def test_a_run_that_begins_anew_says_so_to_whoever_reads(followed: Followed) -> None:
    claimed = followed.begin()
    reader = followed.read()
    followed.runs.record(claimed, [frame(0), frame(1)], total=9)
    until(reader, "annotations")
    followed.runs.requeue(claimed, counted=True)
    restarted = until(reader, "annotations")
    assert restarted[2]["restart"] is True
    assert frames_of(restarted) == []
    second = followed.go_on()
    followed.runs.finish(second, [frame(0), frame(1), frame(2)])
    rest = list(reader)
    assert all_frames(rest) == [0, 1, 2]
    assert [data["restart"] for _id, name, data in rest if name == "annotations"] == [False]


def test_a_run_that_began_anew_meanwhile_says_so_to_whoever_comes_back(followed: Followed) -> None:
    """Even if it has come further than before."""
    claimed = followed.begin()
    followed.runs.record(claimed, [frame(0), frame(1)], total=9)
    told = until(followed.read(), "annotations")
    followed.runs.requeue(claimed, counted=True)
    second = followed.go_on()
    followed.runs.record(second, [frame(number) for number in range(3)], total=9)
    back = until(followed.read(told[0]), "annotations")
    assert back[2]["restart"] is True
    assert frames_of(back) == [0, 1, 2]


def test_the_next_run_is_told_of_after_the_rest_of_the_one_before(followed: Followed) -> None:
    first = followed.begin()
    reader = followed.read()
    followed.runs.record(first, [frame(0)], total=9)
    until(reader, "annotations")
    followed.runs.finish(first, [frame(1)])
    second = followed.begin()
    followed.runs.finish(second, [frame(0)])
    annotations = [told for told in reader if told[1] == "annotations"]
    assert [(told[2]["runId"], frames_of(told)) for told in annotations] == [
        (first.run_id, [1]),
        (second.run_id, [0]),
    ]


def test_a_media_without_a_run_is_told_at_once(followed: Followed) -> None:
    events = list(followed.read())
    assert [name for _id, name, _data in events] == ["status", "done"]


def test_the_end_of_its_process_ends_a_stream_without_done(followed: Followed) -> None:
    followed.begin()
    reader = followed.read()
    next(reader)
    followed.api.services.is_serving = lambda: False
    assert "done" not in [name for _id, name, _data in reader]
    assert followed.api.services.slots.taken == 0


def test_a_poll_that_finds_nothing_new_costs_one_statement(followed: Followed) -> None:
    claimed = followed.begin()
    reader = followed.read()
    for _event in itertools.islice(reader, 2):
        pass
    remaining = iter(range(3))
    followed.api.services.is_serving = lambda: next(remaining, None) is not None
    with Counter(followed.api.services.database) as counter:
        assert list(reader) == []
    assert counter.count == 3
    followed.runs.fail(claimed, RunFailure.DETECTOR, "over")


def test_streams_take_half_of_the_slots_and_leave_the_rest(followed: Followed) -> None:
    followed.begin()
    followed.api.services.slots.set_threads(6)
    readers = [followed.read(user=user) for user in ("ada", "grace")]
    for reader in readers:
        next(reader)
    refused = followed.api.get(f"/media/{followed.media_id}/events", user="edsger")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert followed.api.upload("/media", picture(2)).status_code == 201
    readers[0].close()
    assert next(followed.read())[1] == "status"


def test_one_user_s_streams_leave_one_for_somebody_else(followed: Followed) -> None:
    followed.begin()
    followed.api.services.slots.set_threads(16)
    opened = []
    while (answer := followed.api.get(f"/media/{followed.media_id}/events", buffered=False)).status_code == 200:
        opened.append(answer)
    assert len(opened) == 6  # of seven streams
    assert answer.status_code == 503
    assert "this user's share" in (answer.json or {})["detail"]
    assert next(followed.read(user="grace"))[1] == "status"
    for stream in opened:
        stream.close()
    assert followed.api.services.slots.taken == 0


def test_what_was_found_so_far_can_be_read_during_the_run(followed: Followed) -> None:
    path = f"/media/{followed.media_id}/detections"
    first = followed.begin()
    followed.runs.finish(first, [frame(0)])
    second = followed.begin()
    followed.runs.record(second, [frame(0), frame(1)], total=5)
    running = followed.api.get(f"{path}?run={second.run_id}").json
    assert running is not None
    assert running["run"]["state"] == "running"
    assert running["run"]["framesDone"] == 2
    assert [annotation["frame"] for annotation in running["annotations"]] == [0, 1]
    for query in ("", f"?run={first.run_id}"):
        finished = followed.api.get(path + query).json
        assert finished is not None
        assert finished["run"]["id"] == first.run_id


@pytest.mark.parametrize("run", ["0", "-1", "1.0", "one", "", "1" * 30])
def test_a_run_that_is_no_number_is_refused(run: str, followed: Followed) -> None:
    answer = followed.api.get(f"/media/{followed.media_id}/detections?run={run}")
    assert answer.status_code == 400
    assert answer.json is not None
    assert "run" in answer.json["detail"]


def test_a_run_of_another_media_or_of_none_is_not_found(followed: Followed) -> None:
    claimed = followed.begin()
    other = media_id_of_bytes(picture(2))
    followed.api.upload("/media", picture(2))
    for media_id, run in ((followed.media_id, 2**53 - 1), (other, claimed.run_id), ("0" * 16, claimed.run_id)):
        answer = followed.api.get(f"/media/{media_id}/detections?run={run}")
        assert answer.status_code == 404, (media_id, run)
