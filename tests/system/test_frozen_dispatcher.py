"""Row 14: a dispatcher that is stopped for longer than its lease, and then goes on as if nothing had happened."""

import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import select

from app.database import Database
from app.database.models import Media, MediaStatus, OutboxAttempt, OutboxStream
from app.media.status import change_status, create_media
from app.outbox.queue import OutboxQueue
from tests import fork_server
from tests.eventually import eventually
from tests.paths import ROOT
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.dispatch import LEASE_SECONDS, dispatcher

MEDIA = "00000000000000aa"


def record_two_messages(database: Database) -> None:
    queue = OutboxQueue(database.now)
    media = Media(
        id=MEDIA,
        name="a.jpg",
        path=f"/srv/{MEDIA}.jpg",
        media_type="Image",
        user_id="ada",
        size_bytes=1,
        created_at=1.0,
    )
    with database.write_transaction() as session:
        create_media(session, queue, media, request_id=None)
        change_status(session, queue, MEDIA, MediaStatus.AI_PROCESSING, request_id=None)


def attempts(database: Database) -> list[tuple[int, float]]:
    with database.read_transaction() as session:
        return [(row.seq, row.at) for row in session.scalars(select(OutboxAttempt).order_by(OutboxAttempt.id))]


def test_what_a_dispatcher_writes_after_its_lease_has_gone_changes_nothing(
    database_url: str, annotations: ReferenceService, tmp_path: Path
) -> None:
    with closing(Database(database_url)) as database, (tmp_path / "frozen.log").open("wb") as log:
        record_two_messages(database)
        annotations.control(fail={"delay": 1.0, "times": 1})
        command = [sys.executable, "-m", "tests.system.dispatch", database_url, annotations.url]
        frozen = fork_server.Popen(command, cwd=ROOT, stdout=log)
        try:
            eventually(lambda: bool(annotations.log()))
            frozen.send_signal(signal.SIGSTOP)
            time.sleep(2 * LEASE_SECONDS)
            other = dispatcher(database, annotations.url)
            other.start()
            eventually(lambda: len(attempts(database)) == 2)
            settled = attempts(database)
            frozen.send_signal(signal.SIGCONT)
            eventually(lambda: b"lease_lost" in (tmp_path / "frozen.log").read_bytes())
            other.stop()
            assert attempts(database) == settled
            with database.read_transaction() as session:
                stream = session.get_one(OutboxStream, MEDIA)
                assert stream.acked_seq == 2
                assert stream.last_seq == 2
                assert stream.due_at is None
            assert check_log(annotations.log()) == []
            assert annotations.records()[0]["mediaStatus"] == 2
        finally:
            frozen.send_signal(signal.SIGCONT)
            frozen.terminate()
            frozen.wait(20)
