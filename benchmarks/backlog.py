"""Fills an outbox with a backlog and a history, by the database's own means: a million media in under a minute."""

from sqlalchemy import text

from app.db import Database

_NUMBERS = {
    True: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :media) ",
    False: "WITH n AS (SELECT generate_series(1, :media) AS i) ",
}
_ID = {True: "printf('%016x', i)", False: "lpad(to_hex(i), 16, '0')"}

_MEDIA = """
INSERT INTO media (id, name, path, media_type, media_status, user_id, size_bytes, created_at)
{numbers} SELECT {id}, 'photo.jpg', '/srv/images/' || {id} || '.jpg', 'Image', 2, 'ada', 1, 1.8e9 FROM n
"""
_STREAMS = """
INSERT INTO outbox_stream
    (media_id, last_seq, acked_seq, due_at, lease_epoch, attempts, refusals, uncertain, head_since)
{numbers} SELECT {id}, :history + 1, :history, 1.7e9 + i * 0.001, 0, 0, 0, {false}, 1.7e9 FROM n
"""
_MESSAGES = """
INSERT INTO outbox_message
    (media_id, seq, kind, payload, idempotency_key, user_id, created_at, delivered_at, outcome)
{numbers} SELECT {id}, :seq, 'status', {payload}, {id} || :seq, 'ada', 1.7e9,
    {delivered}, {outcome} FROM n
"""


def fill(database: Database, *, media: int, history: int) -> None:
    """Add `media` media, each with `history` delivered messages and one that waits, overdue."""
    sqlite = database.is_sqlite
    words = {"numbers": _NUMBERS[sqlite], "id": _ID[sqlite], "false": "0" if sqlite else "false"}
    payload = "'{\"mediaStatus\": 2}'" + ("" if sqlite else "::json")
    with database.writer.connect() as connection:
        if not sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(_MEDIA.format(**words)), {"media": media})
        connection.execute(text(_STREAMS.format(**words)), {"media": media, "history": history})
        for seq in range(1, history + 2):
            past = seq <= history
            statement = _MESSAGES.format(
                **words,
                payload=payload,
                delivered="1.7e9" if past else "NULL",
                outcome="'accepted'" if past else "NULL",
            ).replace(":seq", str(seq))
            connection.execute(text(statement), {"media": media})
        connection.commit()
        if not sqlite:
            connection.commit()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
