"""Another process on the same database: `python -m tests.outbox.other_process TASK URL ARGUMENT…`.

Used by the tests here, and by hand for the full figure of contention: start four at once with
`contend sqlite:///… <a name> 8 1000`, each under a name of its own.
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from app.database import Database
from app.database.models import Media
from app.media.status import create_media
from app.outbox.messages import Classification, Message, MessageKind
from app.outbox.queue import OutboxQueue
from app.outbox.watch import ChangeWatcher
from tests.outbox.world import OK, World

LEASE = 1.0


def enqueue(database: Database, media_id: str) -> None:
    """Enqueue one more message of a media item."""
    queue = OutboxQueue(database.now)
    with database.write_transaction() as connection:
        queue.enqueue(connection, media_id, MessageKind.STATUS, {"mediaStatus": 2}, user_id="u", request_id=None)


def contend(database: Database, name: str, threads: str, each: str) -> None:
    """Run threads with transactions that add media items and messages of a shared one."""
    queue = OutboxQueue(database.now)

    def work(thread: int) -> None:
        for number in range(int(each)):
            media = Media(
                id=f"{name}{thread:07x}{number:08x}",
                name="a.jpg",
                path=f"/{name}/{thread}/{number}.jpg",
                media_type="Image",
                user_id="u",
                size_bytes=1,
                created_at=1.0,
            )
            with database.write_transaction() as connection:
                create_media(connection, queue, media, request_id=None)
                queue.enqueue(
                    connection, "0" * 15 + "1", MessageKind.STATUS, {"mediaStatus": 2}, user_id="u", request_id=None
                )

    with ThreadPoolExecutor(int(threads)) as pool:
        list(pool.map(work, range(int(threads))))


def dispatch(database: Database) -> None:
    """Claim due messages with a short lease, print it, and record them as accepted after a line on standard input."""

    begun = threading.Event()

    def deliver(message: Message) -> Classification:
        print(message.media_id, flush=True)
        begun.set()
        sys.stdin.readline()
        return OK

    with closing(World(database)) as world:
        dispatcher = world.dispatcher(deliver, workers=1, lease=LEASE, deadline=LEASE / 2)
        while not begun.wait(0.02):
            dispatcher.turn()


def deliver(database: Database, name: str, arrivals: str) -> None:
    """Deliver until a line on standard input, by appending `<name> <media> <seq>` to a shared file."""

    def add(message: Message) -> Classification:
        with Path(arrivals).open("a") as file:  # one write of one short line: whole, and after all before it
            file.write(f"{name} {message.media_id} {message.seq}\n")
        return OK

    with closing(World(database)) as world:
        dispatcher = world.dispatcher(add, workers=2)
        watcher = ChangeWatcher(database, dispatcher.wake)
        dispatcher.start()
        watcher.start()
        sys.stdin.readline()
        watcher.stop()
        dispatcher.stop()


TASKS: dict[str, Callable[..., None]] = {
    "enqueue": enqueue,
    "contend": contend,
    "dispatch": dispatch,
    "deliver": deliver,
}

if __name__ == "__main__":
    with closing(Database(sys.argv[2])) as opened:
        TASKS[sys.argv[1]](opened, *sys.argv[3:])
