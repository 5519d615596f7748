"""Results of any size: streamed in bounded memory, complete or a part by time."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.detection.results import DetectedObject, FrameResult
from app.media.hashing import media_id_of_bytes
from app.queries.run_results import PAGE_ROWS
from app.runs.claims import ClaimedRun
from app.runs.lifecycle import RunRequest
from tests.api.conftest import Api, picture, settings_in
from tests.long import sqlite_first

pytestmark = pytest.mark.slow

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5)
FOUND = DetectedObject(0, "person", 0.9, 0.5, 0.5, 0.25, 0.25)


def frames(count: int, boxes: int, *, every: int = 1, first: int = 0) -> list[FrameResult]:
    """Return frames half a second apart, with the given number of boxes on some of them."""
    return [
        FrameResult(number, number / 2, (FOUND,) * boxes if number % every == 0 else ())
        for number in range(first, first + count)
    ]


class Recorded:
    """An application in which only the test works on runs, and one media item."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.runs = api.services.runs
        api.upload("/media", picture(1))
        self.media_id = media_id_of_bytes(picture(1))
        self.path = f"/media/{self.media_id}/detections"

    def begin(self) -> ClaimedRun:
        self.runs.start_new(self.media_id, WANTED)
        claimed = self.runs.claim("a worker")
        assert claimed is not None
        return claimed

    def finish(self, results: list[FrameResult]) -> None:
        assert self.runs.finish(self.begin(), results)

    def document(self, query: str = "") -> dict[str, Any]:
        with self.api.get(self.path + query) as answer:
            assert answer.status_code == 200, answer.data
            found: dict[str, Any] = json.loads(answer.data)
            return found

    def numbers(self, query: str = "") -> list[int]:
        return [annotation["frame"] for annotation in self.document(query)["annotations"]]


@pytest.fixture
def recorded(tmp_path: Path, sqlite_template: Path, database_url: str) -> Iterator[Recorded]:
    settings = settings_in(tmp_path / "application", sqlite_template, None, {"DATABASE_URL": database_url})
    with closing(Api(settings)) as api:
        yield Recorded(api)


@pytest.mark.parametrize("boxes", [PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS])
def test_results_of_any_length_come_whole(boxes: int, recorded: Recorded) -> None:
    per_frame = 7  # so that a page ends within a frame
    results = frames(boxes // per_frame, per_frame, every=1)
    results += [FrameResult(len(results), len(results) / 2, (FOUND,) * (boxes % per_frame))]
    recorded.finish(results)
    answer = recorded.document()
    assert answer["run"]["state"] == "done"
    found = [(one["frame"], one["time"], len(one["detections"])) for one in answer["annotations"]]
    assert found == [(one.index, one.time, len(one.objects)) for one in results if one.objects]
    assert answer["annotations"][0]["detections"][0]["label"] == "person"
    assert recorded.api.services.slots.taken == 0


def test_a_long_result_holds_a_slot_until_it_is_written_and_a_short_one_needs_none(recorded: Recorded) -> None:
    recorded.finish(frames(3, 2))
    slots = recorded.api.services.slots
    slots.set_threads(3)
    slots.acquire("somebody else")
    assert recorded.numbers() == [0, 1, 2]
    recorded.finish(frames(PAGE_ROWS, 2))
    assert recorded.api.get(recorded.path).status_code == 503
    slots.release("somebody else")
    answer = recorded.api.get(recorded.path, buffered=False)
    assert next(answer.iter_encoded())
    assert slots.taken == 1
    answer.close()
    assert slots.taken == 0


@pytest.mark.long
@sqlite_first
def test_a_long_result_takes_no_more_memory_than_some_pages(recorded: Recorded) -> None:
    recorded.finish(frames(2_000, 10))
    answer = recorded.api.get(recorded.path, buffered=False)
    pieces = answer.iter_encoded()
    next(pieces)
    tracemalloc.start()
    length = sum(map(len, pieces))
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    answer.close()
    assert length > 2_000_000
    assert peak < length


def test_the_answer_of_a_detection_holds_its_slot_until_it_is_written(recorded: Recorded) -> None:
    """A duplicate returns its stored result."""
    recorded.finish(frames(PAGE_ROWS, 2))
    slots = recorded.api.services.slots
    slots.set_threads(3)  # one slot: the request's is passed on, because a second one would not be free
    answer = recorded.api.send_raw("/detect?name=a.jpg", picture(1), buffered=False)
    assert answer.status_code == 200
    body = next(pieces := answer.iter_encoded())
    assert slots.taken == 1
    document = json.loads(body + b"".join(pieces))
    answer.close()
    assert slots.taken == 0
    assert document["duplicate"] is True
    assert document["media"]["id"] == recorded.media_id
    assert len(document["annotations"]) == PAGE_ROWS


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?from=2", range(4, 200)),
        ("?from=1.75", range(4, 200)),
        ("?to=2", range(4)),
        ("?from=2&to=2", []),
        ("?from=3&to=2", []),
        ("?from=2&to=3.1", [4, 5, 6]),
        ("?from=1000", []),
        ("?from=0&to=1e9", range(200)),
        ("?to=0", []),
    ],
)
def test_a_part_has_the_frames_from_one_time_on_and_before_another(
    query: str, expected: list[int], recorded: Recorded
) -> None:
    recorded.finish(frames(200, 1))
    assert recorded.numbers(query) == list(expected)


def test_frames_without_an_object_do_not_hide_a_part(recorded: Recorded) -> None:
    recorded.finish(frames(90, 2, every=40))
    assert recorded.numbers("?from=0.1") == [40, 80]
    assert recorded.numbers("?from=20&to=40") == [40]
    assert recorded.numbers("?from=20.1&to=40.1") == [80]
    recorded.finish(frames(90, 0))
    assert recorded.numbers("?from=1") == []


@pytest.mark.parametrize("query", ["from=-1", "to=soon", "from=nan", "to=inf", "from=", "to=1e10"])
def test_a_time_that_is_none_is_refused_by_its_name(query: str, recorded: Recorded) -> None:
    answer = recorded.api.get(f"{recorded.path}?{query}")
    assert answer.status_code == 400
    assert query[:2] in (answer.json or {})["detail"]


def test_a_result_that_is_begun_anew_is_broken_off_and_never_mixed(recorded: Recorded) -> None:
    claimed = recorded.begin()
    recorded.runs.record(claimed, frames(PAGE_ROWS, 3), total=None)
    answer = recorded.api.get(f"{recorded.path}?run={claimed.run_id}", buffered=False)
    pieces = answer.iter_encoded()
    next(pieces)
    recorded.runs.requeue(claimed, counted=False)
    again = recorded.runs.claim("another")
    assert again is not None
    recorded.runs.finish(again, frames(PAGE_ROWS, 3))
    with pytest.raises(Exception, match="begun anew"):
        list(pieces)
    answer.close()
    assert recorded.api.services.slots.taken == 0
