"""The outbox's figures, all in one run: python -m benchmarks.outbox [--media 1000000] [--only NAME]

backlog     claim + acknowledge with a long backlog and history, against the same with a short one
held        the same for others beside a held user of whom a tenth as many messages wait, against without
throughput  messages dispatched a second, against a bare loop of the same requests
latency     from a commit in another process to the message's arrival, idle
enqueue     an upload's transaction with its messages, against the same without
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing

import requests
import structlog
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, select

from app.annotations import AnnotationsClient
from app.annotations.tokens import StaticToken
from app.database import Database, WriteTransaction
from app.database.models import Media
from app.database.postgres_connection import PATIENT
from app.media.status import NewMedia, create_all
from app.outbox.circuit import EndpointState, Hold
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.dispatcher import Dispatcher, DispatcherLimits
from app.outbox.queue import OutboxQueue
from app.outbox.watch import ChangeWatcher
from benchmarks.backlog import ENDPOINT, claim_and_acknowledge, fill
from benchmarks.places import Places, places
from benchmarks.receiver import receiver
from tests.servers.poolers import PGBOUNCER, pgbouncer

KINDS = ("sqlite", "postgresql")
WORKERS = 8
OTHERS = 9
Row = tuple[str, str, str, str]


def backlog(at: Places, kind: str, media: int) -> list[Row]:
    """Claims of eight, each acknowledged, in turns on a short and on a long backlog."""
    with closing(_patient(at.url(kind))) as short, closing(_patient(at.url(kind))) as long:
        fill(short, media=1000, history=3)
        fill(long, media=media, history=3)
        times: dict[Database, list[float]] = {short: [], long: []}
        for _round in range(100):
            for database, taken in times.items():
                began = time.perf_counter()
                claim_and_acknowledge(database)
                taken.append(time.perf_counter() - began)
        few, many = statistics.median(times[short]), statistics.median(times[long])
    figure = f"{many * 125:.3f} ms against {few * 125:.3f} ms a message"
    return [(f"claim + acknowledge, {media:,} media against 1,000", kind, figure, f"{many / few:.2f} (at most 1.2)")]


def _patient(url: str) -> Database:
    """A database that is filled by statements of minutes."""
    return Database(url, limits=PATIENT)


def held(at: Places, kind: str, waiting: int) -> list[Row]:
    """The same for others beside a held user of whom so many messages wait, all due before theirs, against without."""
    with closing(_patient(at.url(kind))) as without, closing(_patient(at.url(kind))) as beside:
        fill(beside, media=waiting, history=0, user="held", first=10_000_000)
        for database in (without, beside):
            for number in range(OTHERS):
                fill(database, media=400, history=0, user=f"user-{number}", first=1000 * number)
        hold = Hold(time.time(), time.time() + 3000, 1, "403")
        with beside.write_transaction() as session:
            breaker = CircuitBreaker(ENDPOINT, beside.now)
            before = breaker.lock(session).endpoint
            breaker.save(session, before, EndpointState(before.circuit, {"held": hold}))
        times: dict[Database, list[float]] = {without: [], beside: []}
        for _round in range(100):
            for database, taken in times.items():
                began = time.perf_counter()
                claim_and_acknowledge(database, holds_any=database is beside)
                taken.append(time.perf_counter() - began)
        plain, others = statistics.median(times[without]), statistics.median(times[beside])
    figure = f"{others * 125:.3f} ms against {plain * 125:.3f} ms a message"
    what = f"claim + acknowledge of {OTHERS} users beside a held one with {waiting:,} waiting"
    return [(what, kind, figure, f"{others / plain:.2f}")]


def throughput(at: Places, kind: str, messages: int = 4000) -> list[Row]:
    """In turns: the dispatcher on a backlog, and threads that send the same requests with nothing behind them."""
    ratios, rates = [], []
    with receiver() as (url, _process):
        for _round in range(3):
            with closing(_patient(at.url(kind))) as database:
                fill(database, media=messages, history=0)
                bare = messages / _bare(url, messages)
                ours = messages / _dispatch(database, url)
            ratios.append(ours / bare)
            rates.append((ours, bare))
    ours, bare = sorted(rates)[1]
    figure = f"{ours:.0f} against {bare:.0f} messages/s, {WORKERS} threads"
    return [("dispatch against a bare loop", kind, figure, f"{statistics.median(ratios):.2f} (at least 0.8)")]


def _bare(url: str, messages: int) -> float:
    numbers = iter(range(messages))
    lock = threading.Lock()

    def send() -> None:
        with requests.Session() as session:
            session.trust_env = False
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                headers = {
                    "Authorization": "Bearer " + "x" * 200,
                    "Content-Type": "application/json",
                    "Idempotency-Key": str(uuid.uuid4()),
                    "X-Outbox-Seq": "1",
                }
                body = json.dumps({"mediaStatus": 2})
                session.put(f"{url}/api/media/{number:016x}/status", data=body, headers=headers, timeout=10)

    threads = [threading.Thread(target=send) for _ in range(WORKERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _dispatch(database: Database, url: str) -> float:
    client = AnnotationsClient(url, StaticToken("x" * 200))
    dispatcher = _dispatcher(database, url, client)
    began = time.perf_counter()
    dispatcher.start()
    while _pending(database):
        time.sleep(0.02)
    taken = time.perf_counter() - began
    dispatcher.stop()
    client.close()
    return taken


def _dispatcher(database: Database, url: str, client: AnnotationsClient) -> Dispatcher:
    queue, breaker = OutboxQueue(database.now), CircuitBreaker(url, database.now)
    return Dispatcher(database, queue, breaker, client.deliver, limits=DispatcherLimits(workers=WORKERS))


def _pending(database: Database) -> bool:
    with database.read_transaction() as session:
        return OutboxQueue(database.now).next_due_in(session) is not None


def latency(at: Places, kind: str, commits: int = 200) -> list[Row]:
    """Another process commits a message now and then; the receiver notes when it came."""
    url = at.url(kind)
    with closing(Database(url)) as database:
        figure = _arrivals(database, url, commits)
    rows = [("commit in another process to arrival", kind, figure, "(15 and 60 ms)")]
    if kind == "postgresql" and PGBOUNCER is not None:
        with pgbouncer(url, "transaction") as pooled, closing(Database(pooled, pooler="transaction")) as database:
            figure = _arrivals(database, url, commits)
        rows.append(("the same by polling, behind PgBouncer in transaction pooling", kind, figure, "(p99 1,000 ms)"))
    return rows


def _arrivals(database: Database, url: str, commits: int) -> str:
    """`url` is where the other process commits."""
    with receiver(quiet=False) as (receiver_url, receiving):
        client = AnnotationsClient(receiver_url, StaticToken("x" * 200))
        dispatcher = _dispatcher(database, receiver_url, client)
        watcher = ChangeWatcher(database, dispatcher.wake)
        dispatcher.start()
        watcher.start()
        command = [sys.executable, "-m", "benchmarks.committer", url, str(commits)]
        committed = dict(
            line.split()
            for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        )
        assert receiving.stdout is not None
        delays = []
        for _message in range(commits):
            line = receiving.stdout.readline()
            media_id = json.loads(line[line.index("{") : line.rindex("}") + 1])["id"]
            delays.append(float(line.split()[-1]) - float(committed[media_id]))
        watcher.stop()
        dispatcher.stop()
        client.close()
    delays.sort()
    p50, p99 = delays[len(delays) // 2] * 1000, delays[int(len(delays) * 0.99)] * 1000
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def enqueue(at: Places, kind: str, rounds: int = 300) -> list[Row]:
    """The transaction that records an upload, with its message and without, in turns."""
    with closing(Database(at.url(kind))) as database:
        queue = OutboxQueue(database.now)

        columns = Media.__table__.columns.keys()
        add_media = insert(Media.__table__)  # type: ignore[arg-type]

        def begun(transaction: WriteTransaction) -> Media:
            media = _media()
            media.created_at = transaction.scalars(select(database.now)).one()
            return media

        def with_message() -> None:
            with database.write_transaction() as transaction:
                media = begun(transaction)
                create_all(transaction, queue, [NewMedia(media, None)], media.created_at)

        def without() -> None:
            with database.write_transaction() as transaction:
                media = begun(transaction)
                transaction.execute(add_media, [{name: getattr(media, name) for name in columns}])

        ours, theirs = _alternate(with_message, without, rounds)
    figure = f"{ours * 1000:.2f} ms against {theirs * 1000:.2f} ms"
    return [
        ("recording an upload with its message against without", kind, figure, f"{ours / theirs:.2f} (at most 1.25)")
    ]


def _alternate(first: Callable[[], None], second: Callable[[], None], rounds: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _round in range(rounds):
        for work, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def _media() -> Media:
    media_id = uuid.uuid4().hex[:16]
    return Media(
        id=media_id,
        name="photo.jpg",
        path=f"/srv/images/{media_id}.jpg",
        media_type="Image",
        media_status=1,
        user_id="ada",
        size_bytes=1,
        created_at=1.8e9,
    )


def main() -> None:
    """Run them all, or one, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, default=1_000_000, help="the long backlog's media")
    parser.add_argument("--only", choices=["backlog", "held", "throughput", "latency", "enqueue"])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    table = Table("what", "database", "figure", "ratio")
    parts: dict[str, Callable[[Places, str], list[Row]]] = {
        "enqueue": enqueue,
        "latency": latency,
        "throughput": throughput,
        "backlog": lambda at, kind: backlog(at, kind, options.media),
        "held": lambda at, kind: held(at, kind, options.media // 10),
    }
    with places() as at:
        for name, measure in parts.items():
            for kind in KINDS if options.only in (None, name) else ():
                for row in measure(at, kind):
                    table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
