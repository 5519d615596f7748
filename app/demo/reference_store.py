"""What the reference annotations service remembers: media, accepted messages, and every request as it arrived.

Each change is one transaction with its mark in the request log, so the log tells exactly what was applied and in
which order, even after the process was killed. Durability against a power cut is not promised: it is a tool.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.demo.rules import TRANSITIONS, Refusal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS media (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL,
    last_epoch INTEGER NOT NULL,
    last_seq INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS accepted (
    idempotency_key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS request_log (
    position INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER,
    media_id TEXT,
    epoch INTEGER,
    seq INTEGER,
    idempotency_key TEXT,
    request_id TEXT,
    body TEXT NOT NULL,
    applied INTEGER NOT NULL DEFAULT 0,
    answered_after INTEGER
);
"""
_NOW = "(SELECT max(position) FROM request_log)"
_LOG = """
SELECT position AS "index", at, method, path, status, media_id AS mediaId, epoch, seq,
       idempotency_key AS idempotencyKey, request_id AS requestId, body, applied, answered_after AS answeredAfter
FROM request_log WHERE position > ? ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived. `body` is the parsed JSON, or the text where it is none."""

    method: str
    path: str
    media_id: str | None
    epoch: int
    seq: int | None
    idempotency_key: str | None
    request_id: str | None
    body: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an accepted message."""

    status: int
    body: dict[str, Any]


class ReferenceStore:
    """The database of the reference annotations service; usable from any thread."""

    def __init__(self, database: Path) -> None:
        # One connection for all threads: SQLite writes one at a time anyhow, and opening one costs more than a write.
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(database, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def arrived(self, arrival: Arrival) -> int:
        """Log a request and return its index, 1 or more."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO request_log (at, method, path, media_id, epoch, seq, idempotency_key, request_id, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    time.time(),
                    arrival.method,
                    arrival.path,
                    arrival.media_id,
                    arrival.epoch,
                    arrival.seq,
                    arrival.idempotency_key,
                    arrival.request_id,
                    json.dumps(arrival.body),
                ),
            )
            return int(cursor.lastrowid or 0)

    def answered(self, index: int, status: int | None) -> None:
        """Log how a request was answered; None where the connection was closed without an answer."""
        with self._transaction() as connection:
            connection.execute(
                f"UPDATE request_log SET status = ?, answered_after = coalesce(answered_after, {_NOW})"
                " WHERE position = ?",
                (status, index),
            )

    def create(self, index: int, key: str, record: dict[str, Any], seq: int | None, epoch: int = 1) -> Reply:
        """Store a new media once. Raises Refusal: 409 for an id that exists, 422 for a key used for something else."""
        request = json.dumps(["create", record], sort_keys=True)
        with self._transaction() as connection:
            earlier = _accepted_before(connection, key, request)
            if earlier is not None:
                return earlier
            if _find(connection, record["id"]) is not None:
                raise Refusal(409, "media-exists", f"Media {record['id']} exists, created under another key.")
            connection.execute(
                "INSERT INTO media (id, record, last_epoch, last_seq) VALUES (?, ?, ?, ?)",
                (record["id"], json.dumps(record), epoch, seq or 0),
            )
            return _accept(connection, index, key, request, Reply(201, record))

    def change_status(self, index: int, key: str, media_id: str, status: int, seq: int, epoch: int = 1) -> Reply:
        """Take over a status once; one that is not later than the last, by epoch and then by number, is ignored.

        Raises Refusal: 404 unknown media, 409 not allowed now, 422 key used elsewhere.
        """
        request = json.dumps(["status", media_id, status], sort_keys=True)
        with self._transaction() as connection:
            earlier = _accepted_before(connection, key, request)
            if earlier is not None:
                return earlier
            found = _find(connection, media_id)
            if found is None:
                raise _unknown(media_id)
            record, last = found
            if (epoch, seq) <= last:
                return Reply(200, {"ignored": True})
            if (record["mediaStatus"], status) not in TRANSITIONS:
                detail = f"Media {media_id} has status {record['mediaStatus']}, which cannot become {status}."
                raise Refusal(409, "status-not-allowed", detail)
            record["mediaStatus"] = status
            connection.execute(
                "UPDATE media SET record = ?, last_epoch = ?, last_seq = ? WHERE id = ?",
                (json.dumps(record), epoch, seq, media_id),
            )
            return _accept(connection, index, key, request, Reply(200, record))

    def record(self, media_id: str) -> dict[str, Any]:
        """Return one media record. Raises Refusal (404)."""
        with self._transaction() as connection:
            found = _find(connection, media_id)
        if found is None:
            raise _unknown(media_id)
        return found[0]

    def records(self) -> list[dict[str, Any]]:
        """Return every media record in the order of arrival."""
        with self._transaction() as connection:
            return [
                json.loads(record) for (record,) in connection.execute("SELECT record FROM media ORDER BY position")
            ]

    def forget(self, media_ids: Sequence[str]) -> None:
        """Lose these records, and what was accepted of them, as a service does that is restored from a backup."""
        with self._transaction() as connection:
            for media_id in media_ids:
                connection.execute("DELETE FROM media WHERE id = ?", (media_id,))
                connection.execute(
                    "DELETE FROM accepted WHERE idempotency_key IN"
                    " (SELECT lower(idempotency_key) FROM request_log WHERE media_id = ?)",
                    (media_id,),
                )

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the requests that arrived after the one with that index, in order of arrival.

        `status` is None while a request is under way, and where it was never answered. `answeredAfter` is the index
        of the last request that had arrived when this one was decided: one with a larger index came later.
        """
        with self._transaction() as connection:
            cursor = connection.execute(_LOG, (after,))
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        return [row | {"body": json.loads(row["body"]), "applied": bool(row["applied"])} for row in rows]

    def close(self) -> None:
        """Let go of the file; the store is of no use afterwards."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back on an exception
                yield self._connection


def _find(connection: sqlite3.Connection, media_id: str) -> tuple[dict[str, Any], tuple[int, int]] | None:
    row = connection.execute("SELECT record, last_epoch, last_seq FROM media WHERE id = ?", (media_id,)).fetchone()
    return None if row is None else (json.loads(row[0]), (row[1], row[2]))


def _accepted_before(connection: sqlite3.Connection, key: str, request: str) -> Reply | None:
    row = connection.execute(
        "SELECT request, status, answer FROM accepted WHERE idempotency_key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    if row[0] != request:
        raise Refusal(422, "idempotency-key-reused", "This Idempotency-Key was used for another request.")
    return Reply(row[1], json.loads(row[2]))


def _accept(connection: sqlite3.Connection, index: int, key: str, request: str, reply: Reply) -> Reply:
    connection.execute(
        "INSERT INTO accepted (idempotency_key, request, status, answer) VALUES (?, ?, ?, ?)",
        (key, request, reply.status, json.dumps(reply.body)),
    )
    connection.execute(f"UPDATE request_log SET applied = 1, answered_after = {_NOW} WHERE position = ?", (index,))
    return reply


def _unknown(media_id: str) -> Refusal:
    return Refusal(404, "unknown-media", f"There is no media {media_id}.")
