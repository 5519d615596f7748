"""Long requests share the slots of a process, so that short ones find a thread; every slot is released."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.errors import Unavailable
from app.media.hashing import media_id_of_bytes
from app.process.slots import ConcurrencyLimiter
from tests.api.conftest import RUNS_OUT, Api, MakeApi, Untouched, picture
from tests.long import later
from tests.system.service import token

SLOTS = 2


class Paused(io.RawIOBase):
    """A body that stops after its first byte until `go_on` is set."""

    def __init__(self, content: bytes) -> None:
        self._pieces = [content[:1], content[1:]]
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.environ = {"wsgi.input": self, "CONTENT_LENGTH": str(len(content))}

    def readable(self) -> bool:
        return True

    def read(self, _size: int = -1) -> bytes:
        if len(self._pieces) == 1:
            self.begun.set()
            self.go_on.wait(30)
        return self._pieces.pop(0) if self._pieces else b""


def send(api: Api, path: str, body: Any, user: str = "ada") -> TestResponse:
    return api.request("POST", path, user=user, content_type="image/jpeg", environ_overrides=body.environ)


@contextmanager
def uploads_of(api: Api, *users: str) -> Iterator[list[Future[TestResponse]]]:
    """Keep one upload of each of these users under way during the block, and finish them at its end."""
    bodies = [Paused(picture(number)) for number in range(len(users))]
    with ThreadPoolExecutor(len(users)) as clients:
        answers = [
            clients.submit(send, api, "/media?name=a.jpg", body, user) for body, user in zip(bodies, users, strict=True)
        ]
        try:
            for body in bodies:
                assert body.begun.wait(10)
            yield answers
        finally:
            for body in bodies:
                body.go_on.set()


def every_slot_taken(api: Api) -> AbstractContextManager[list[Future[TestResponse]]]:
    """Keep uploads of different users under way on all slots during the block."""
    return uploads_of(api, *(f"user {number}" for number in range(SLOTS)))


@pytest.fixture
def small(make_api: MakeApi) -> Api:
    """An application of a server with two threads more than slots."""
    return make_api(threads=SLOTS + 2)


@pytest.mark.parametrize("path", later(["/detect?name=a.jpg"], "/media?name=a.jpg", "/detect?persist=false&name=a.jpg"))
def test_an_upload_without_a_slot_is_refused_unread(small: Api, path: str) -> None:
    body = Untouched(picture(10))
    with every_slot_taken(small) as uploads:
        refused = send(small, path, body)
    assert refused.status_code == 503
    assert refused.json is not None
    assert refused.json["type"].endswith("unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert not body.was_read
    assert [answer.result().status_code for answer in uploads] == [201, 201]
    assert small.services.slots.taken == 0
    assert send(small, path, Untouched(picture(10))).status_code in (200, 201)


def test_the_other_long_calls_need_a_slot_too(small: Api) -> None:
    media_id = media_id_of_bytes(picture(11))
    small.upload("/media", picture(11))
    with every_slot_taken(small):
        for method, path in (("GET", "content"), ("GET", "events")):
            assert small.request(method, f"/media/{media_id}/{path}").status_code == 503
        assert small.request("POST", f"/detect/{media_id}").status_code == 503
    assert small.services.slots.taken == 0


def test_a_repair_by_an_administrator_needs_a_slot_before_its_body_is_read(small: Api) -> None:
    body = Untouched(b'{"all": true}')
    headers = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}
    with every_slot_taken(small):
        refused = small.request(
            "POST", "/outbox/retry", headers=headers, content_type="application/json", environ_overrides=body.environ
        )
    assert refused.status_code == 503
    assert not body.was_read


def test_short_calls_answer_while_every_slot_is_taken(small: Api) -> None:
    media_id = media_id_of_bytes(picture(12))
    small.upload("/media", picture(12))
    with every_slot_taken(small):
        for path in ("/healthz", "/readyz", "/metrics", "/media", f"/media/{media_id}"):
            assert small.get(path).status_code == 200
        assert small.get(f"/media/{media_id}/detections").status_code == 404


def test_a_token_is_verified_before_a_slot_is_taken(small: Api) -> None:
    with every_slot_taken(small):
        refused = small.upload("/media", picture(13), headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401


def stop_reading(api: Api, path: str) -> None:
    """A client that disconnects after the first part of its response."""
    answer = api.get(path, buffered=False)
    assert next(answer.iter_encoded())
    answer.close()


Cause = Callable[[Api, str], Any]


@pytest.mark.parametrize(
    "cause",
    [
        pytest.param(lambda api, _id: api.upload("/media", picture(20)), id="upload"),
        pytest.param(lambda api, _id: api.upload("/media", picture(20), "a.svg"), id="refused upload"),
        pytest.param(lambda api, _id: api.upload("/media", b""), id="empty upload"),
        pytest.param(lambda api, _id: api.upload("/detect", RUNS_OUT), id="failed detection"),
        pytest.param(lambda api, _id: api.upload("/detect?persist=false", RUNS_OUT), id="failed in memory"),
        pytest.param(lambda api, _id: api.upload("/detect?persist=false", b"", "a.mp4"), id="video in memory"),
        pytest.param(lambda api, _id: api.request("POST", "/detect/0123456789abcdef"), id="unknown detection"),
        pytest.param(lambda api, media: api.get(f"/media/{media}/content").close(), id="download"),
        pytest.param(lambda api, media: stop_reading(api, f"/media/{media}/content"), id="download cut off"),
        pytest.param(
            lambda api, media: api.get(f"/media/{media}/content", headers={"Range": "bytes=0-9"}).close(), id="part"
        ),
        pytest.param(
            lambda api, media: api.get(f"/media/{media}/content", headers={"Range": "bytes=999999-"}), id="wrong part"
        ),
        pytest.param(
            lambda api, media: api.get(f"/media/{media}/content", headers={"If-None-Match": f'"{media}"'}).close(),
            id="unchanged",
        ),
        pytest.param(
            lambda api, media: api.get(f"/media/{media}/content", headers={"If-Match": '"other"'}), id="other version"
        ),
        pytest.param(lambda api, media: api.request("HEAD", f"/media/{media}/content").close(), id="head"),
        pytest.param(lambda api, media: api.get(f"/media/{media}/events").close(), id="events"),
        pytest.param(lambda api, media: stop_reading(api, f"/media/{media}/events"), id="events cut off"),
        pytest.param(lambda api, media: api.request("HEAD", f"/media/{media}/events").close(), id="head of events"),
        pytest.param(lambda api, _id: api.get("/media/0123456789abcdef/content"), id="unknown download"),
        pytest.param(lambda api, _id: api.get("/media/0123456789abcdef/events"), id="unknown events"),
    ],
)
def test_a_slot_is_given_back_once(api: Api, cause: Cause) -> None:
    content = picture(21, (400, 300))
    api.upload("/media", content)
    for _ in range(3):
        cause(api, media_id_of_bytes(content))
        assert api.services.slots.taken == 0


def test_a_download_keeps_its_slot_until_it_is_closed(small: Api) -> None:
    media_id = media_id_of_bytes(picture(14))
    small.upload("/media", picture(14))
    users = ("grace", "edsger")
    downloads = [small.get(f"/media/{media_id}/content", user=user, buffered=False) for user in users]
    assert small.services.slots.taken == SLOTS
    assert small.upload("/media", picture(15)).status_code == 503
    for download in downloads:
        download.close()
    assert small.upload("/media", picture(15)).status_code == 201


def test_a_user_beyond_his_share_is_told_so_before_his_body_is_read_and_others_are_served(make_api: MakeApi) -> None:
    api = make_api(threads=6)  # four slots: two are a user's share, one is reserved for others
    body = Untouched(picture(30))
    with uploads_of(api, "ada", "ada", "ada"):
        refused = send(api, "/media?name=a.jpg", body)
        assert send(api, "/media?name=a.jpg", Untouched(picture(31)), "grace").status_code == 201
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json is not None
    assert refused.json["type"].endswith("unavailable")
    assert "this user's share" in refused.json["detail"]
    assert not body.was_read
    assert api.services.slots.taken == 0
    assert send(api, "/media?name=a.jpg", Untouched(picture(30))).status_code == 201


def test_downloads_and_events_count_to_the_share_too(make_api: MakeApi) -> None:
    api = make_api(threads=6)
    media_id = media_id_of_bytes(picture(32))
    api.upload("/media", picture(32))
    downloads = [api.get(f"/media/{media_id}/content", buffered=False) for _ in range(3)]
    for path in ("content", "events"):
        refused = api.get(f"/media/{media_id}/{path}")
        assert refused.json is not None
        assert "this user's share" in refused.json["detail"]
        with api.get(f"/media/{media_id}/{path}", user="grace") as served:
            assert served.status_code == 200
    for download in downloads:
        download.close()
    assert api.services.slots.taken == 0


def refuses(slots: ConcurrencyLimiter, user: str) -> bool:
    try:
        slots.acquire(user)
    except Unavailable:
        return True
    return False


def slots_of(threads: int) -> ConcurrencyLimiter:
    slots = ConcurrencyLimiter(99)
    slots.set_threads(threads)
    return slots


@pytest.mark.parametrize(("threads", "count"), [(16, 14), (3, 1), (2, 1), (1, 1)])
def test_slots_are_two_fewer_than_threads_but_never_none(threads: int, count: int) -> None:
    slots = slots_of(threads)
    for number in range(count):
        slots.acquire(f"user {number}")
    assert refuses(slots, "one more")
    slots.release("user 0")
    slots.acquire("one more")


@pytest.mark.parametrize(("threads", "alone"), [(3, 1), (4, 1), (5, 2), (6, 3), (16, 12), (66, 54)])
def test_a_user_alone_goes_beyond_his_share_but_leaves_some_slots(threads: int, alone: int) -> None:
    slots = slots_of(threads)
    for _ in range(alone):
        slots.acquire("ada")
    assert refuses(slots, "ada")
    assert refuses(slots, "grace") == (threads == 3)


def test_each_of_two_users_has_his_half_whoever_comes_first() -> None:
    slots = slots_of(16)
    for _ in range(7):
        slots.acquire("ada")
    for _ in range(7):
        slots.acquire("grace")
    assert slots.taken == 14


def test_who_holds_more_than_his_share_gets_no_slot_that_another_gave_back_until_there_are_enough() -> None:
    slots = slots_of(16)
    for user in ["ada"] * 12 + ["grace"] * 2:
        slots.acquire(user)
    slots.release("grace")
    assert refuses(slots, "ada")
    assert not refuses(slots, "edsger")
    for _ in range(3):
        slots.release("ada")
    assert not refuses(slots, "ada")
    assert refuses(slots, "ada")


def test_of_many_at_once_only_as_many_get_one_as_there_are_slots() -> None:
    slots = ConcurrencyLimiter(5)
    together = threading.Barrier(20)

    def gets_one(number: int) -> bool:
        together.wait(10)
        return not refuses(slots, f"user {number}")

    with ThreadPoolExecutor(20) as people:
        assert sum(people.map(gets_one, range(20))) == 5
