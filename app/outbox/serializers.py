"""The JSON of the outbox, for the commands and the API. Nothing here queries the database."""

from collections.abc import Sequence
from typing import Any

from app.database.history import DatabaseIdentity
from app.database.models import OutboxAttempt, OutboxMessage, OutboxStream
from app.formats.timestamps import optional_rfc3339
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import HeldUser
from app.outbox.counts import OutboxStatus
from app.outbox.listing import StreamHistory


def status(found: OutboxStatus, circuit: Circuit, held: Sequence[HeldUser]) -> dict[str, Any]:
    """Serialize the state of the outbox with the endpoint's circuit and the held users."""
    return {
        "pending": found.pending,
        "parked": found.parked,
        "oldestAgeSeconds": None if found.oldest_age is None else round(found.oldest_age, 3),
        "deliveredLastHour": found.delivered_last_hour,
        "circuit": {
            "state": str(circuit.state),
            "since": optional_rfc3339(circuit.opened_at),
            "retryAt": optional_rfc3339(circuit.retry_at),
            "reason": circuit.reason,
        },
        "held": [
            {
                "userId": one.user_id,
                "since": optional_rfc3339(one.hold.since),
                "until": optional_rfc3339(one.hold.until),
                "reason": one.hold.reason,
                "waiting": one.waiting,
            }
            for one in held
        ],
    }


def database(stored: DatabaseIdentity | None) -> dict[str, Any]:
    """Serialize the database's epoch, and when it was restored if nobody has resent the lost messages since."""
    return {
        "epoch": stored.reached.epoch if stored else 1,
        "restoredAt": optional_rfc3339(stored.restored_at) if stored else None,
    }


def message(row: OutboxMessage, stream: OutboxStream) -> dict[str, Any]:
    """Serialize a message. Only the head of a stream has attempts, a next attempt and a last error."""
    state = _state(row, stream)
    waits = state != "delivered" and row.seq == stream.acked_seq + 1
    return {
        "mediaId": row.media_id,
        "seq": row.seq,
        "kind": row.kind,
        "userId": row.user_id,
        "payload": row.payload,
        "state": state,
        "outcome": row.outcome,
        "createdAt": optional_rfc3339(row.created_at),
        "deliveredAt": optional_rfc3339(row.delivered_at),
        "attempts": stream.attempts if waits else 0,
        "nextAttemptAt": optional_rfc3339(stream.due_at) if waits and not stream.lease_owner else None,
        "lastError": (stream.park_reason or stream.last_error) if waits else None,
    }


def history(found: StreamHistory) -> dict[str, Any]:
    """Serialize a stream with its messages and their attempts."""
    stream = found.stream
    return {
        "mediaId": stream.media_id,
        "lastSeq": stream.last_seq,
        "ackedSeq": stream.acked_seq,
        "waitingSince": optional_rfc3339(stream.waiting_since),
        "nextAttemptAt": optional_rfc3339(stream.due_at) if not stream.lease_owner else None,
        "sendingBy": stream.lease_owner,
        "parkedAt": optional_rfc3339(stream.parked_at),
        "parkReason": stream.park_reason,
        "lastStatus": stream.last_status,
        "lastError": stream.last_error,
        "messages": [
            {**message(row, stream), "attempts": [attempt(one) for one in attempts]} for row, attempts in found.messages
        ],
    }


def attempt(row: OutboxAttempt) -> dict[str, Any]:
    """Serialize an attempt."""
    return {
        "at": optional_rfc3339(row.at),
        "milliseconds": round(row.duration * 1000, 1),
        "verdict": row.verdict,
        "status": row.status,
        "detail": row.detail,
        "excerpt": row.excerpt,
    }


def _state(row: OutboxMessage, stream: OutboxStream) -> str:
    if row.delivered_at is not None:
        return "delivered"
    return "parked" if stream.parked_at is not None else "pending"
