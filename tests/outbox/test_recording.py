"""Results that cannot be stored together are stored one by one; one that cannot be stored does not stop the others."""

from sqlalchemy import text
from structlog.testing import capture_logs

from app.database.models import MediaStatus
from app.outbox.messages import Classification, Verdict
from tests.conftest import Clock
from tests.eventually import eventually
from tests.outbox.world import LEASE, OK, Receiver, World

REASON = "500, 写真 is not stored here"
REFUSE = {
    "words": "NEW.last_error LIKE '%写真%'",
    "everything": "NEW.last_error LIKE '%500%'",
}


def refuse(world: World, condition: str) -> None:
    """Make the database refuse a text, as one with another encoding does."""
    body = f"CREATE TRIGGER picky BEFORE UPDATE ON outbox_stream FOR EACH ROW WHEN ({condition})"
    with world.database.write_transaction() as session:
        if world.database.is_sqlite:
            session.execute(text(f"{body} BEGIN SELECT RAISE(ABORT, 'cannot be stored'); END"))
            return
        session.execute(
            text(
                "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'cannot be stored' USING ERRCODE = '22P05'; END $$"
            )
        )
        session.execute(text(f"{body} EXECUTE FUNCTION picky()"))


def deliver(world: World, condition: str) -> tuple[str, list[str]]:
    """Deliver messages, one of which gets a text that cannot be stored; return their media ids."""
    refuse(world, condition)
    picky, others = world.media(), [world.media(MediaStatus.AI_PROCESSING) for _ in range(5)]
    receiver = Receiver(OK)
    receiver.answer(picky, Classification(Verdict.RETRY, REASON, 500, excerpt="写真"))
    dispatcher = world.dispatcher(receiver)
    dispatcher.turn()
    eventually(lambda: len(receiver.arrived) >= 1 + len(others), "the first of each")
    for _ in range(20):
        dispatcher.sleep(min(dispatcher.turn(), 0.02))
    dispatcher.finish()
    return picky, others


def test_an_outcome_in_words_that_cannot_be_stored_is_stored_in_plain_text(world: World) -> None:
    """As in a database with another encoding than UTF-8."""
    picky, others = deliver(world, REFUSE["words"])
    assert all(world.stream(media_id).acked_seq == 2 for media_id in others)
    stream = world.stream(picky)
    assert stream.last_error == "500, ?? is not stored here"
    assert stream.failures == 1
    assert stream.lease_owner is None
    assert [attempt.excerpt for attempt in world.attempts(picky)] == ["??"]


def test_an_outcome_that_cannot_be_stored_at_all_is_left_to_its_lease_and_said(world: World, clock: Clock) -> None:
    with capture_logs() as logged:
        picky, others = deliver(world, REFUSE["everything"])
    assert all(world.stream(media_id).acked_seq == 2 for media_id in others)
    assert world.stream(picky).lease_owner is not None
    assert picky in [one["media_id"] for one in logged if one["event"] == "result_not_recorded"]
    clock.advance(LEASE + 1)
    receiver = Receiver()
    world.drive(world.dispatcher(receiver))
    assert receiver.of(picky) == [1]
    assert receiver.arrived[0].outcome_unknown
    assert world.stream(picky).acked_seq == 1
