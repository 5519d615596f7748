"""Group commit: how uploads share a commit, and that one's failure does not affect the others."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.database import Database, Topic, WriteTransaction
from app.database.models import Media
from app.errors import StorageFailed, Unavailable
from app.ingest import IngestResult, Upload
from app.ingest.group_commit import InTransaction
from app.storage.sweep import SweepReport
from tests.eventually import eventually
from tests.ingest.intake import Intake, open_intake, picture

CLIP = b"\0\0\0\x18ftypmp42" + bytes(8000)


@pytest.fixture
def intake(tmp_path: Path, sqlite_url: str) -> Iterator[Intake]:
    with closing(Database(sqlite_url)) as database:
        yield open_intake(tmp_path / "media", database)


def nothing(_connection: WriteTransaction, _media: Media) -> None:
    pass


class Group:
    """Uploads that are published and wait behind the commit of a first one."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.commits = 0
        intake.database.subscribe(Topic.MESSAGES, self._count)
        self._pool = ThreadPoolExecutor(32)
        self._go_on = threading.Event()
        entered = threading.Event()

        def pause(_connection: WriteTransaction, _media: Media) -> None:
            entered.set()
            assert self._go_on.wait(60)

        self.first = self._pool.submit(self.send, picture("first"), "first.jpg", pause)
        assert entered.wait(30)

    def send(self, content: bytes, name: str, in_transaction: InTransaction = nothing) -> IngestResult:
        return self.intake.ingest.run(Upload(name, "ada", [content]), in_transaction)

    def add(
        self, content: bytes, name: str = "photo.jpg", in_transaction: InTransaction = nothing
    ) -> "Future[IngestResult]":
        """Add an upload, and return when it is waiting."""
        published = len(self.published())
        future = self._pool.submit(self.send, content, name, in_transaction)
        eventually(lambda: len(self.published()) > published)
        time.sleep(0.02)  # from its link to its place in the queue
        return future

    def published(self) -> list[Path]:
        folders = (self.intake.images, self.intake.folder / "videos")
        return [path for folder in folders if folder.exists() for path in folder.iterdir() if path.is_file()]

    def let_go(self) -> None:
        self._go_on.set()
        assert not self.first.result(60).duplicate

    def close(self) -> None:
        self._go_on.set()
        self._pool.shutdown()

    def _count(self) -> None:
        self.commits += 1


@pytest.fixture
def group(intake: Intake) -> Iterator[Group]:
    with closing(Group(intake)) as group:
        yield group


def test_uploads_that_wait_for_a_commit_share_the_next_one(intake: Intake, group: Group) -> None:
    waiting = [group.add(picture(number)) for number in range(8)]
    group.let_go()
    assert [one.result(60).duplicate for one in waiting] == [False] * 8
    assert len(intake.rows()) == 9
    assert group.commits <= 4
    intake.assert_sound()


def test_postgresql_commits_each_by_itself(tmp_path: Path, postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database:
        intake = open_intake(tmp_path / "media", database)
        with closing(Group(intake)) as group:
            assert not group.add(picture("second")).result(60).duplicate
            assert not group.first.done()
        intake.assert_sound()


def test_nobody_is_told_of_a_commit_before_it_is_there(intake: Intake, group: Group) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def pause(_connection: WriteTransaction, _media: Media) -> None:
        entered.set()
        assert go_on.wait(20)

    waiting = [group.add(picture(1)), group.add(picture(2), in_transaction=pause), group.add(picture(3))]
    group.let_go()
    assert entered.wait(30)
    time.sleep(0.2)
    assert [one.done() for one in waiting] == [False] * 3
    assert len(intake.rows()) == 1
    go_on.set()
    assert [one.result(60).duplicate for one in waiting] == [False] * 3
    intake.assert_sound()


def test_one_that_conflicts_leaves_the_others_of_its_group_alone(intake: Intake, group: Group) -> None:
    same = [group.add(picture("same"), "photo.jpg"), group.add(picture("same"), "photo.jpeg")]
    others = [group.add(picture(number)) for number in range(3)]
    group.let_go()
    assert sorted(one.result(60).duplicate for one in same) == [False, True]
    assert [one.result(60).duplicate for one in others] == [False] * 3
    assert len(intake.rows()) == 5
    assert len(intake.stored()) == 5
    assert intake.leftovers() == []
    intake.assert_sound()


def test_one_whose_addition_fails_leaves_the_others_of_its_group_alone(intake: Intake, group: Group) -> None:
    def fail(_connection: WriteTransaction, _media: Media) -> None:
        raise RuntimeError("the addition failed")

    bad = group.add(picture("bad"), in_transaction=fail)
    others = [group.add(picture(number)) for number in range(3)]
    group.let_go()
    with pytest.raises(RuntimeError, match="the addition failed"):
        bad.result(60)
    assert [one.result(60).duplicate for one in others] == [False] * 3
    assert not intake.final(picture("bad")).exists()
    assert len(intake.rows()) == 4
    assert len(intake.stored()) == 4
    assert intake.leftovers() == []
    intake.assert_sound()


def test_one_whose_folder_cannot_be_synced_leaves_the_others_of_its_group_alone(intake: Intake, group: Group) -> None:
    bad = group.add(CLIP, "clip.mp4")
    other = group.add(picture("other"))
    (intake.folder / "videos").rename(intake.folder / "gone")
    group.let_go()
    with pytest.raises(StorageFailed):
        bad.result(60)
    assert not other.result(60).duplicate
    assert len(intake.rows()) == 2
    intake.assert_sound()


def test_where_the_database_stays_busy_all_who_wait_are_told_at_once(tmp_path: Path, sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as holder, closing(Database(sqlite_url, busy_seconds=1.0)) as database:
        intake = open_intake(tmp_path / "media", database)
        with holder.write_transaction() as session, ThreadPoolExecutor(8) as pool:
            session.connection()
            began = time.monotonic()
            waiting = [pool.submit(intake.send, picture(number)) for number in range(8)]
            for one in waiting:
                with pytest.raises(Unavailable):
                    one.result(60)
            assert time.monotonic() - began < 6
        assert intake.rows() == []
        assert intake.stored() == set()
        assert intake.leftovers() == []


class Interrupted(BaseException):
    """Raised by a signal handler."""


@contextmanager
def interruptible() -> Iterator[None]:
    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGUSR1)


def test_one_that_is_interrupted_while_it_waits_is_not_recorded_and_leaves_its_proof(
    intake: Intake, group: Group
) -> None:
    def interrupt() -> None:
        eventually(intake.final(picture("interrupted")).exists)
        time.sleep(0.2)
        interrupt_main_thread()

    with ThreadPoolExecutor(1) as pool, interruptible():
        interrupted = pool.submit(interrupt)
        with pytest.raises(Interrupted):
            intake.send(picture("interrupted"))
        interrupted.result(60)
    other = group.add(picture("other"))
    group.let_go()
    assert not other.result(60).duplicate
    assert len(intake.rows()) == 2
    intake.assert_sound()
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    assert len(intake.stored()) == 2
    assert not intake.send(picture("interrupted")).duplicate


def test_one_that_is_interrupted_while_another_records_it_keeps_its_file(intake: Intake, group: Group) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def pause(_connection: WriteTransaction, _media: Media) -> None:
        entered.set()
        assert go_on.wait(20)

    def interrupt() -> None:
        eventually(intake.final(picture("interrupted")).exists)
        time.sleep(0.2)
        group.let_go()
        assert entered.wait(30)
        interrupt_main_thread()
        time.sleep(0.2)
        go_on.set()

    slow = group.add(picture("slow"), in_transaction=pause)
    with ThreadPoolExecutor(1) as pool, interruptible():
        interrupted = pool.submit(interrupt)
        with pytest.raises(Interrupted):
            intake.send(picture("interrupted"))
        interrupted.result(60)
    assert not slow.result(60).duplicate
    assert len(intake.rows()) == 3
    intake.assert_sound()
    intake.sweep.run()
    assert intake.leftovers() == []
    intake.assert_sound()
