"""A dispatcher as a process with a short lease: argv is the database's URL and the annotations service's."""

import signal
import sys
import threading
from contextlib import closing

from app.annotations import AnnotationsClient
from app.annotations.tokens import MintedTokens
from app.database import Database
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.dispatcher import Dispatcher, DispatcherLimits
from app.outbox.queue import OutboxQueue
from tests.system.service import SECRET

LEASE_SECONDS, DEADLINE_SECONDS = 2.0, 1.5


def dispatcher(database: Database, url: str) -> Dispatcher:
    """A dispatcher that lets go of a media after LEASE_SECONDS."""
    client = AnnotationsClient(url, MintedTokens(SECRET), deadline_seconds=DEADLINE_SECONDS)
    limits = DispatcherLimits(workers=2, lease=LEASE_SECONDS, deadline=DEADLINE_SECONDS)
    return Dispatcher(
        database, OutboxQueue(database.now), CircuitBreaker(url, database.now), client.deliver, limits=limits
    )


def main() -> None:
    """Dispatch until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    with closing(Database(sys.argv[1])) as database:
        ours = dispatcher(database, sys.argv[2])
        ours.start()
        print("dispatching", flush=True)
        ended.wait()
        ours.stop()


if __name__ == "__main__":
    main()
