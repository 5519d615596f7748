"""Lists of messages page by page, and deliveries per minute."""

import pytest
from sqlalchemy import Double, literal, select

from app.database import Database
from app.database.models import MediaStatus, OutboxMessage, OutboxStream
from app.database.sql_functions import floor_to_int
from app.errors import MalformedUpload, NotParked
from app.outbox import admin, listing
from app.outbox.listing import State
from tests.conftest import Clock
from tests.outbox.statements import Counter, add_backlog
from tests.outbox.world import CONTRADICTED, SERVER_ERROR, Receiver, World

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED


def turned(world: World, state: State, limit: int) -> list[list[tuple[str, int]]]:
    """Return all pages of a state, as (media id, seq) of each message."""
    pages: list[list[tuple[str, int]]] = []
    cursor = None
    while not pages or cursor:
        with world.database.read_transaction() as session:
            page = listing.page(session, state=state, limit=limit, cursor=cursor)
        pages.append([(message.media_id, message.seq) for message, _ in page.items])
        cursor = page.next_cursor
    return pages


def fill(world: World, clock: Clock) -> None:
    """Add five media items with three messages each: two delivered, one parked after its first, two waiting."""
    made = [world.media(PROCESSING, PROCESSED) for _ in range(5)]
    receiver = Receiver()
    receiver.answer(made[2], CONTRADICTED)
    receiver.answer(made[3], SERVER_ERROR)
    receiver.answer(made[4], SERVER_ERROR)
    world.drive(world.dispatcher(receiver))
    clock.advance(3)


def in_order(world: World, state: State) -> list[tuple[str, int]]:
    """Return the messages of a state in the expected order."""
    with world.database.read_transaction() as session:
        rows = session.execute(select(OutboxMessage, OutboxStream).join(OutboxStream)).all()
    if state == "delivered":
        ended = [message for message, _ in rows if message.delivered_at is not None]
        delivered = [(-(message.delivered_at or 0.0), message.media_id, message.seq) for message in ended]
        return [(media_id, seq) for _, media_id, seq in sorted(delivered)]
    waiting = [(message, stream) for message, stream in rows if not message.outcome]
    moments = [
        (stream.due_at if state == "pending" else stream.parked_at, message.media_id, message.seq)
        for message, stream in waiting
    ]
    return [(media_id, seq) for at, media_id, seq in sorted(one for one in moments if one[0] is not None)]


def test_pages_show_every_message_of_a_state_once_and_in_order(world: World, clock: Clock) -> None:
    fill(world, clock)
    counts: dict[State, int] = {"pending": 6, "parked": 3, "delivered": 6}
    for state, count in counts.items():
        listed = in_order(world, state)
        for limit in (1, 2, 3, 100):
            pages = turned(world, state, limit)
            shown = [message for page in pages for message in page]
            assert shown == listed
            assert len(shown) == count
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            assert 0 < len(pages[-1]) <= limit


def test_a_page_goes_on_behind_its_cursor_whatever_has_come_before_it(world: World, clock: Clock) -> None:
    fill(world, clock)
    with world.database.read_transaction() as session:
        first = listing.page(session, state="delivered", limit=2, cursor=None)
    newer = world.media()
    world.drive(world.dispatcher(Receiver()))
    assert turned(world, "delivered", 1)[0] == [(newer, 1)]
    with world.database.read_transaction() as session:
        rest = listing.page(session, state="delivered", limit=100, cursor=first.next_cursor)
    assert newer not in {message.media_id for message, _ in rest.items}
    assert len(rest.items) == 4


def test_a_cursor_of_something_else_is_refused(sqlite_world: World) -> None:
    of_another_list, without_number = "parked_0x1.0p30_0000000000000001_1", "pending_0x1.0p30_0000000000000001"
    for cursor in ("", "x", of_another_list, without_number, f"pending_0x1.0p9999_{'0' * 16}_1"):
        with sqlite_world.database.read_transaction() as session, pytest.raises(MalformedUpload, match="cursor"):
            listing.page(session, state="pending", limit=1, cursor=cursor)


def test_pages_and_throughput_walk_an_index_however_long_the_history(sqlite_world: World, clock: Clock) -> None:
    database = sqlite_world.database
    add_backlog(database, 300, due_at=clock.seconds, delivered=True)
    with Counter(database) as sent, database.read_transaction() as session:
        for state in ("pending", "parked", "delivered"):
            cursor = f"{state}_0x1.0p30_{'0' * 16}_1"
            listing.page(session, state=state, limit=5, cursor=None)
            listing.page(session, state=state, limit=5, cursor=cursor)
        listing.throughput(session, database.now)
    asked = [one for one in sent.statements if "outbox" in one[0]]
    assert len(asked) == 7
    with database.read_transaction() as session:
        for statement, parameters in asked:
            plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            details = [row[3] for row in plan]
            assert [one for one in details if one.startswith("SCAN outbox_") and "ix_outbox_" not in one] == [], details
            assert any("ix_outbox_" in one for one in details), details


def test_the_throughput_counts_by_the_minute_of_the_last_hour(world: World, clock: Clock) -> None:
    clock.advance(60 - clock.seconds % 60)  # a minute begins
    begin = clock.seconds
    dispatcher = world.dispatcher(Receiver())
    for after, messages in ((0, 1), (59.999, 2), (60, 3), (59 * 60, 1), (60 * 60 - 0.001, 1)):
        clock.advance(begin + after - clock.seconds)
        for _ in range(messages):
            world.media()
        world.drive(dispatcher)
    with world.database.read_transaction() as session:
        minutes = listing.throughput(session, world.database.now)
    assert [one.at for one in minutes] == [begin + 60 * number for number in range(60)]
    assert {number: one.delivered for number, one in enumerate(minutes) if one.delivered} == {0: 3, 1: 3, 59: 2}
    clock.advance(60)
    with world.database.read_transaction() as session:
        later = listing.throughput(session, world.database.now)
    assert later[0].at == begin + 60
    assert [one.delivered for one in later[:2]] == [3, 0]


def test_the_floor_of_a_number_is_not_rounded(database: Database) -> None:
    with database.read_transaction() as session:
        for number, expected in ((0.0, 0), (0.5, 0), (1.5, 1), (2.999, 2), (30_000_000.75, 30_000_000)):
            assert session.scalar(select(floor_to_int(literal(number, Double())))) == expected


def test_a_retry_by_reason_takes_those_whose_reason_contains_the_text(world: World) -> None:
    def parked(reason: str) -> str:
        media_id = world.media()
        receiver = Receiver()
        receiver.answer(media_id, CONTRADICTED)
        world.drive(world.dispatcher(receiver))
        world.set_stream(media_id, park_reason=reason)
        reasons[media_id] = reason
        return media_id

    reasons: dict[str, str] = {}
    percent, other = parked("422: 100% Wrong path"), parked("422: 100 per cent wrong_path")

    def retried(reason: str) -> list[str]:
        with world.database.write_transaction() as session:
            found = admin.retry_parked(session, world.database.now, None, reason=reason)
        for media_id in found:
            stream = world.stream(media_id)
            world.set_stream(media_id, parked_at=stream.due_at, due_at=None, park_reason=reasons[media_id])
        return sorted(found)

    assert retried("422") == sorted([percent, other])
    assert retried("wrong PATH") == [percent]
    assert retried("100%") == [percent]
    assert retried("g_p") == [other]
    assert retried("\\") == []
    assert retried("500") == []


def test_a_skip_tells_a_media_that_is_not_parked_from_one_that_is_unknown(world: World) -> None:
    waiting = world.media()
    with pytest.raises(NotParked), world.database.write_transaction() as session:
        admin.skip_head(session, world.database.now, waiting)
