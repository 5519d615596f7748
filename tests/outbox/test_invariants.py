"""`flask outbox verify`: reports nothing about a sound outbox and finds each planted inconsistency."""

import pytest
from sqlalchemy import text

from app.database.models import MediaStatus
from app.outbox.invariants import MAX_REPORTED, broken_invariants
from tests.outbox.statements import LATER, add_backlog
from tests.outbox.world import LOST, OK, REFUSED, SERVER_ERROR, Receiver, World

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED
FOUR_CHANGES = (PROCESSING, PROCESSED, PROCESSING, MediaStatus.ERROR)


def broken(world: World) -> list[tuple[str, str]]:
    with world.database.read_transaction() as session:
        return [(row["mediaId"], row["problem"]) for row in broken_invariants(session)]


def run(world: World, *statements: str) -> None:
    """Run SQL that violates an invariant."""
    with world.database.write_transaction() as session:
        for statement in statements:
            session.execute(text(statement))


def running(world: World, media_id: str) -> None:
    """Add a run under way."""
    run(
        world,
        "INSERT INTO detection_run (media_id, user_id, detector, confidence, frame_interval, state, attempts,"
        " lease_epoch, lease_until, frames_done, boxes_done, results_epoch, packets_skipped, created_at)"
        f" VALUES ('{media_id}', 'ada', 'd', 0.5, 0.5, 'running', 1, 1, 99999999999, 0, 0, 0, 0, 0)",
    )


def test_a_sound_outbox_has_nothing_to_report(world: World, receiver: Receiver) -> None:
    delivered, troubled, refused, lost = (world.media(PROCESSING, PROCESSED) for _ in range(4))
    receiver.answer(troubled, SERVER_ERROR)
    receiver.answer(refused, REFUSED)
    receiver.answer(lost, LOST)
    world.drive(world.dispatcher(receiver))
    busy = world.media(PROCESSING)
    running(world, busy)
    world.media()
    assert world.stream(delivered).acked_seq == 3
    assert broken(world) == []


def test_no_backlog_makes_it_report_anything(world: World) -> None:
    add_backlog(world.database, 50, due_at=LATER)
    assert broken(world) == []


OF_IT = "WHERE media_id = '{m}'"
PLANTED = {
    "a waiting message is gone": (f"DELETE FROM outbox_message {OF_IT} AND seq = 4", "not the ones between"),
    "the last message is gone": (f"DELETE FROM outbox_message {OF_IT} AND seq = 5", "not the ones between"),
    "the head counts too far": (f"UPDATE outbox_stream SET last_seq = 9 {OF_IT}", "not the ones between"),
    "the head counts too little": (f"UPDATE outbox_stream SET last_seq = 4 {OF_IT}", "not the ones between"),
    "acknowledged though it waits": (f"UPDATE outbox_stream SET acked_seq = 4 {OF_IT}", "never delivered"),
    "delivered out of order": (
        f"UPDATE outbox_message SET delivered_at = 5, outcome = 'accepted' {OF_IT} AND seq = 5",
        "counts as delivered",
    ),
    "a gap in the numbers": (f"UPDATE outbox_message SET seq = 50 {OF_IT} AND seq = 5", "a gap"),
    "a delivered message is gone": (f"DELETE FROM outbox_message {OF_IT} AND seq = 2", "a gap"),
    "one key for two": (f"UPDATE outbox_message SET idempotency_key = 'k' {OF_IT}", "share an idempotency key"),
    "a status never told": ("UPDATE media SET media_status = 3 WHERE id = '{m}'", "not the one of its last message"),
    "processing without a run": ("UPDATE media SET media_status = 2 WHERE id = '{m}'", "no run of it is under way"),
}


@pytest.mark.parametrize("planted", sorted(PLANTED))
def test_each_planted_inconsistency_is_found(world: World, receiver: Receiver, planted: str) -> None:
    sound, media_id = world.media(*FOUR_CHANGES), world.media(*FOUR_CHANGES)
    for each in (sound, media_id):
        receiver.answer(each, OK, OK, OK, SERVER_ERROR)
    world.drive(world.dispatcher(receiver))
    assert broken(world) == []
    statement, problem = PLANTED[planted]
    run(world, statement.format(m=media_id))
    found = broken(world)
    assert any(problem in text and media == media_id for media, text in found), found
    assert all(media == media_id for media, _text in found)


def test_at_most_so_many_of_each_kind_are_named(world: World) -> None:
    add_backlog(world.database, MAX_REPORTED * 3, due_at=LATER)
    run(world, "DELETE FROM outbox_message")
    assert len(broken(world)) == MAX_REPORTED
