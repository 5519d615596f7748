"""Each constraint works on both databases, and a status changes only in the allowed ways."""

from itertools import product
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.database.models import (
    Base,
    CounterShard,
    DatabaseInstance,
    Detection,
    DetectionRun,
    Media,
    MediaStatus,
    OutboxAttempt,
    OutboxCircuit,
    OutboxHold,
    OutboxMessage,
    OutboxStream,
    ResumableUpload,
    SharedKey,
)
from app.errors import IllegalTransition
from app.media.status import ALLOWED_FROM, change_status, create_media
from app.outbox.queue import OutboxQueue

ID = "0123456789abcdef"
OTHER = "fedcba9876543210"

Row = dict[str, Any]


def media(**changes: Any) -> Row:
    row = {
        "id": ID, "name": "photo.jpg", "path": f"/images/{ID}.jpg", "media_type": "Image", "media_status": 1,
        "user_id": "ada", "size_bytes": 1, "created_at": 1.0,
    }  # fmt: skip
    return row | changes


def run(**changes: Any) -> Row:
    row = {
        "media_id": ID, "user_id": "ada", "detector": "d", "confidence": 0.5, "frame_interval": 1.0,
        "state": "queued", "attempts": 0, "lease_epoch": 0, "frames_done": 0, "packets_skipped": 0, "created_at": 1.0,
    }  # fmt: skip
    return row | changes


def detection(**changes: Any) -> Row:
    row = {
        "run_id": 1, "frame": 0, "ordinal": 0, "time": 0.0, "class_num": 0, "label": "person", "confidence": 0.5,
        "center_x": 0.5, "center_y": 0.5, "width": 0.1, "height": 0.1,
    }  # fmt: skip
    return row | changes


def stream(**changes: Any) -> Row:
    row = {
        "media_id": ID, "last_seq": 1, "acked_seq": 0, "due_at": 1.0, "lease_epoch": 0, "attempts": 0, "failures": 0,
        "counted_attempts": 0, "user_id": "ada", "outcome_unknown": False, "waiting_since": 1.0,
    }  # fmt: skip
    return row | changes


def message(**changes: Any) -> Row:
    row = {
        "media_id": ID, "seq": 1, "kind": "create", "payload": {}, "idempotency_key": "key", "user_id": "ada",
        "created_at": 1.0,
    }  # fmt: skip
    return row | changes


def attempt(**changes: Any) -> Row:
    row = {
        "media_id": ID, "seq": 1, "at": 1.0, "duration": 1.0, "verdict": "delivered", "detail": "", "excerpt": "",
    }  # fmt: skip
    return row | changes


def circuit(**changes: Any) -> Row:
    return {"endpoint": "endpoint", "state": "closed", "failures": 0} | changes


def upload(**changes: Any) -> Row:
    row = {
        "id": "0" * 32, "user_id": "ada", "kind": "single", "state": "receiving", "file": "/incoming/file",
        "upload_metadata": "", "length": 10, "received": 0, "takeovers": 0, "created_at": 1.0, "expires_at": 2.0,
    }  # fmt: skip
    return row | changes


def hold(**changes: Any) -> Row:
    row = {"endpoint": "endpoint", "user_id": "ada", "since": 1.0, "until": 2.0, "failures": 1, "reason": "403"}
    return row | changes


def instance(**changes: Any) -> Row:
    return {"id": 1, "instance_id": "i" * 36, "epoch": 1, "counter": 0} | changes


PARKED = {"due_at": None, "parked_at": 1.0}
IDLE = {"last_seq": 1, "acked_seq": 1, "due_at": None, "waiting_since": None}

VALID: list[tuple[type[Base], Row]] = [
    *[(Media, media(id=OTHER, path="/other", media_status=status)) for status in (1, 2, 3, 6)],
    (Media, media(id=OTHER, path="/other", media_type="Video", size_bytes=0, name="n" * 255, user_id="u" * 255)),
    (DetectionRun, run()),
    (DetectionRun, run(state="running", lease_until=1.0)),
    (DetectionRun, run(state="done", finished_at=1.0)),
    *[
        (DetectionRun, run(state="failed", finished_at=1.0, failure=failure))
        for failure in ("undecodable", "too-large", "detector")
    ],
    (OutboxStream, stream()),
    (OutboxStream, stream(**IDLE)),
    (OutboxStream, stream(**PARKED)),
    (OutboxCircuit, circuit(state="open", retry_at=1.0)),
    (OutboxCircuit, circuit(state="half-open", retry_at=1.0)),
    (OutboxHold, hold()),
    (ResumableUpload, upload()),
    (ResumableUpload, upload(length=None, received=11)),
    (ResumableUpload, upload(state="complete", file=None, received=10, media_id=ID, duplicate=True)),
    (ResumableUpload, upload(state="failed", file=None, error="UnsupportedMedia", error_detail="a text")),
    (CounterShard, {"name": "attempts", "value": 0.0}),
    (SharedKey, {"purpose": "links", "secret": "0" * 64}),
    (DatabaseInstance, instance()),
]

INVALID: list[tuple[str, type[Base], Row]] = [
    *[
        ("ck_media_status_allowed", Media, media(id=OTHER, path="/other", media_status=status))
        for status in (-1, 0, 4, 5, 7, 12)
    ],
    ("ck_media_id_length", Media, media(id="0123456789abcde", path="/other")),
    ("ck_media_id_length", Media, media(id="", path="/other")),
    ("ck_media_type_allowed", Media, media(id=OTHER, path="/other", media_type="Audio")),
    ("ck_media_type_allowed", Media, media(id=OTHER, path="/other", media_type="image")),
    ("ck_media_size_not_negative", Media, media(id=OTHER, path="/other", size_bytes=-1)),
    ("ck_media_user_present", Media, media(id=OTHER, path="/other", user_id="")),
    ("ck_media_name_present", Media, media(id=OTHER, path="/other", name="")),
    ("pk_media|media.id", Media, media(path="/other")),
    ("uq_media_path|media.path", Media, media(id=OTHER)),
    ("ck_detection_run_state_allowed", DetectionRun, run(state="paused")),
    ("ck_detection_run_running_is_leased", DetectionRun, run(state="running")),
    ("ck_detection_run_running_is_leased", DetectionRun, run(lease_until=1.0)),
    ("ck_detection_run_ended_has_time", DetectionRun, run(state="done")),
    ("ck_detection_run_ended_has_time", DetectionRun, run(finished_at=1.0)),
    ("ck_detection_run_failed_has_failure", DetectionRun, run(state="failed", finished_at=1.0)),
    ("ck_detection_run_failed_has_failure", DetectionRun, run(failure="detector")),
    ("ck_detection_run_failure_allowed", DetectionRun, run(state="failed", finished_at=1.0, failure="tired")),
    ("ck_detection_run_frames_not_negative", DetectionRun, run(frames_done=-1)),
    ("ck_detection_run_waiting_kind_allowed", DetectionRun, run(waiting_kind="weather", waiting_for="rain")),
    ("ck_detection_run_waiting_has_reason", DetectionRun, run(waiting_kind="missing")),
    ("ck_detection_run_waiting_has_reason", DetectionRun, run(waiting_for="it is not there")),
    (
        "ck_detection_run_waiting_is_queued",
        DetectionRun,
        run(state="done", finished_at=1.0, waiting_kind="missing", waiting_for="it is not there"),
    ),
    ("fk_detection_run_media_id|FOREIGN KEY", DetectionRun, run(media_id=OTHER)),
    ("ck_detection_confidence_is_fraction", Detection, detection(confidence=1.01)),
    ("ck_detection_confidence_is_fraction", Detection, detection(confidence=-0.01)),
    ("ck_detection_position_not_negative", Detection, detection(frame=-1)),
    ("ck_detection_position_not_negative", Detection, detection(ordinal=-1)),
    ("fk_detection_run_id|FOREIGN KEY", Detection, detection(run_id=99)),
    ("ck_outbox_stream_acked_within_last", OutboxStream, stream(acked_seq=2)),
    ("ck_outbox_stream_acked_within_last", OutboxStream, stream(acked_seq=-1)),
    ("ck_outbox_stream_attempts_not_negative", OutboxStream, stream(attempts=-1)),
    ("ck_outbox_stream_attempts_not_negative", OutboxStream, stream(failures=-1)),
    ("ck_outbox_stream_attempts_not_negative", OutboxStream, stream(counted_attempts=-1)),
    ("ck_outbox_stream_parked_is_not_due", OutboxStream, stream(parked_at=1.0)),
    ("ck_outbox_stream_parked_is_not_due", OutboxStream, stream(**PARKED, lease_owner="someone")),
    ("ck_outbox_stream_waiting_is_due_or_parked", OutboxStream, stream(due_at=None)),
    ("ck_outbox_stream_waiting_is_due_or_parked", OutboxStream, stream(**IDLE | {"due_at": 1.0})),
    ("ck_outbox_stream_waiting_has_since", OutboxStream, stream(waiting_since=None)),
    ("ck_outbox_stream_waiting_has_since", OutboxStream, stream(**IDLE | {"waiting_since": 1.0})),
    ("fk_outbox_stream_media_id|FOREIGN KEY", OutboxStream, stream(media_id=OTHER)),
    ("ck_outbox_message_seq_from_one", OutboxMessage, message(seq=0)),
    ("ck_outbox_message_kind_allowed", OutboxMessage, message(kind="delete")),
    ("ck_outbox_message_delivered_has_outcome", OutboxMessage, message(delivered_at=1.0)),
    ("ck_outbox_message_delivered_has_outcome", OutboxMessage, message(outcome="accepted")),
    ("ck_outbox_message_outcome_allowed", OutboxMessage, message(delivered_at=1.0, outcome="lost")),
    ("fk_outbox_message_media_id|FOREIGN KEY", OutboxMessage, message(media_id=OTHER)),
    ("fk_outbox_attempt_media_id_seq|FOREIGN KEY", OutboxAttempt, attempt(seq=9)),
    ("ck_outbox_circuit_state_allowed", OutboxCircuit, circuit(state="ajar", retry_at=1.0)),
    ("ck_outbox_circuit_open_has_retry_at", OutboxCircuit, circuit(state="open")),
    ("ck_outbox_circuit_open_has_retry_at", OutboxCircuit, circuit(retry_at=1.0)),
    ("ck_outbox_circuit_failures_not_negative", OutboxCircuit, circuit(failures=-1)),
    ("ck_outbox_hold_failures_from_one", OutboxHold, hold(failures=0)),
    ("ck_counter_shard_value_not_negative", CounterShard, {"name": "attempts", "value": -1.0}),
    ("ck_resumable_upload_kind_allowed", ResumableUpload, upload(kind="whole")),
    ("ck_resumable_upload_state_allowed", ResumableUpload, upload(state="paused", file=None)),
    ("ck_resumable_upload_receiving_has_file", ResumableUpload, upload(file=None)),
    ("ck_resumable_upload_receiving_has_file", ResumableUpload, upload(state="complete")),
    ("ck_resumable_upload_failed_has_error", ResumableUpload, upload(state="failed", file=None)),
    ("ck_resumable_upload_failed_has_error", ResumableUpload, upload(error="MediaTooLarge")),
    ("ck_resumable_upload_received_within_length", ResumableUpload, upload(received=11)),
    ("ck_resumable_upload_received_within_length", ResumableUpload, upload(received=-1)),
    ("ck_resumable_upload_user_present", ResumableUpload, upload(user_id="")),
    ("ck_shared_key_secret_length", SharedKey, {"purpose": "links", "secret": "short"}),
    ("ck_database_instance_single_row", DatabaseInstance, instance(id=2)),
    ("ck_database_instance_instance_id_length", DatabaseInstance, instance(instance_id="short")),
    ("ck_database_instance_reached_not_negative", DatabaseInstance, instance(epoch=0)),
    ("ck_database_instance_reached_not_negative", DatabaseInstance, instance(counter=-1)),
]

STANDS_ON: dict[type[Base], list[tuple[type[Base], Row]]] = {
    Detection: [(DetectionRun, run())],
    OutboxMessage: [(OutboxStream, stream())],
    OutboxAttempt: [(OutboxStream, stream()), (OutboxMessage, message())],
}


def store(database: Database, table: type[Base], row: Row) -> None:
    with database.write_transaction() as session:
        session.execute(insert(table), [row])


@pytest.fixture
def prepared(database: Database) -> Database:
    store(database, Media, media())
    return database


@pytest.mark.parametrize(
    ("table", "row"), VALID, ids=[f"{table.__tablename__}-{number}" for number, (table, _) in enumerate(VALID)]
)
def test_what_the_contract_knows_can_be_stored(table: type[Base], row: Row, prepared: Database) -> None:
    store(prepared, table, row)


@pytest.mark.parametrize(
    ("names", "table", "row"),
    INVALID,
    ids=[f"{number}-{names.partition('|')[0]}" for number, (names, _, _) in enumerate(INVALID)],
)
def test_what_must_never_be_cannot_be_stored(names: str, table: type[Base], row: Row, prepared: Database) -> None:
    for below, stands in STANDS_ON.get(table, []):
        store(prepared, below, stands)
    with pytest.raises(IntegrityError, match=names):
        store(prepared, table, row)


def test_every_check_constraint_has_a_row_that_it_refuses() -> None:
    checks = {
        str(one.name)
        for table in Base.metadata.tables.values()
        for one in table.constraints
        if isinstance(one, CheckConstraint)
    }
    assert checks <= {names for names, _, _ in INVALID}


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_media_has_one_run_under_way_at_most(state: str, prepared: Database) -> None:
    store(prepared, DetectionRun, run(state="done", finished_at=1.0))
    store(prepared, DetectionRun, run(state=state, lease_until=1.0 if state == "running" else None))
    with pytest.raises(IntegrityError, match=r"uq_detection_run_active|detection_run\.media_id"):
        store(prepared, DetectionRun, run())
    store(prepared, DetectionRun, run(state="failed", finished_at=1.0, failure="detector"))


def test_a_stored_status_cannot_be_changed_into_one_of_another_service(prepared: Database) -> None:
    for status in (4, 5):
        with pytest.raises(IntegrityError), prepared.write_transaction() as session:
            session.execute(update(Media).values(media_status=status))


def test_a_sequence_number_is_used_once_per_media(prepared: Database) -> None:
    store(prepared, OutboxStream, stream())
    store(prepared, OutboxMessage, message())
    with pytest.raises(IntegrityError):
        store(prepared, OutboxMessage, message(kind="status"))


CONTRACT = {(1, 2), (2, 3), (2, 6), (3, 2), (6, 2)}


def new_media(database: Database, status: MediaStatus) -> OutboxQueue:
    queue = OutboxQueue(database.now)
    with database.write_transaction() as session:
        create_media(session, queue, Media(**media()), request_id="request")
        session.execute(update(Media).values(media_status=status))
    return queue


def kinds_and_payloads(database: Database) -> list[tuple[int, str, Row]]:
    with database.read_transaction() as session:
        rows = session.execute(
            select(OutboxMessage.seq, OutboxMessage.kind, OutboxMessage.payload).order_by(OutboxMessage.seq)
        )
        return [(seq, kind, payload) for seq, kind, payload in rows]


def status_of(database: Database) -> int:
    with database.read_transaction() as session:
        return session.scalars(select(Media.media_status)).one()


@pytest.mark.parametrize(("before", "after"), list(product(MediaStatus, MediaStatus)))
def test_a_status_moves_only_as_the_contract_allows(
    before: MediaStatus, after: MediaStatus, database: Database
) -> None:
    queue = new_media(database, before)
    if (before, after) in CONTRACT:
        with database.write_transaction() as session:
            change_status(session, queue, ID, after, request_id=None)
        assert status_of(database) == after
        assert kinds_and_payloads(database)[1:] == [(2, "status", {"mediaStatus": after})]
    else:
        with pytest.raises(IllegalTransition), database.write_transaction() as session:
            change_status(session, queue, ID, after, request_id=None)
        assert status_of(database) == before
        assert len(kinds_and_payloads(database)) == 1


def test_the_table_of_transitions_is_the_contracts() -> None:
    assert {(before, after) for after, befores in ALLOWED_FROM.items() for before in befores} == CONTRACT


def test_a_status_of_an_unknown_media_cannot_change(database: Database) -> None:
    with pytest.raises(IllegalTransition), database.write_transaction() as session:
        change_status(session, OutboxQueue(database.now), ID, MediaStatus.AI_PROCESSING, request_id=None)


def test_a_new_media_has_its_create_message_in_the_words_of_the_contract(database: Database) -> None:
    new_media(database, MediaStatus.NEW)
    [(seq, kind, payload)] = kinds_and_payloads(database)
    assert seq == 1
    assert kind == "create"
    assert payload == {
        "id": ID,
        "name": "photo.jpg",
        "path": f"/images/{ID}.jpg",
        "mediaType": "Image",
        "mediaStatus": 1,
        "userId": "ada",
    }


def test_a_rollback_takes_the_media_its_status_and_its_messages_with_it(database: Database) -> None:
    queue = OutboxQueue(database.now)

    def fail_at_the_end() -> None:
        with database.write_transaction() as session:
            create_media(session, queue, Media(**media()), request_id=None)
            change_status(session, queue, ID, MediaStatus.AI_PROCESSING, request_id=None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_at_the_end()
    assert kinds_and_payloads(database) == []
    with database.read_transaction() as session:
        assert session.scalars(select(Media)).all() == []
        assert session.scalars(select(OutboxStream)).all() == []
