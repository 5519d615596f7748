"""What the outbox looks like in JSON: one shape for the commands and the API.

Nothing here asks the database for anything.
"""

from typing import Any

from app.history import Stored
from app.models import OutboxAttempt, OutboxMessage, OutboxStream
from app.outbox.gate import GateCondition
from app.outbox.operations import OutboxStatus, StreamHistory
from app.timestamps import optional_rfc3339


def status(found: OutboxStatus, gate: GateCondition | None, moment: float) -> dict[str, Any]:
    """How the outbox stands at `moment`, in seconds since 1970; no gate is an open one."""
    closed_for = gate.closed_for if gate else None
    return {
        "pending": found.pending,
        "parked": found.parked,
        "oldestAgeSeconds": None if found.oldest_age is None else round(found.oldest_age, 3),
        "deliveredLastHour": found.delivered_last_hour,
        "gate": {
            "state": "open" if closed_for is None else "closed",
            "until": None if closed_for is None else optional_rfc3339(moment + closed_for),
            "reason": gate.reason if gate else None,
        },
    }


def database(stored: Stored | None) -> dict[str, Any]:
    """Which epoch the messages are numbered in, and since when a restoration waits for a person to see to it."""
    return {
        "epoch": stored.reached.epoch if stored else 1,
        "restoredAt": optional_rfc3339(stored.restored_at) if stored else None,
    }


def message(row: OutboxMessage, stream: OutboxStream) -> dict[str, Any]:
    """One message; how often it was tried and what is next is known of the head of its stream alone."""
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
    """One media's stream, and its messages with every attempt."""
    stream = found.stream
    return {
        "mediaId": stream.media_id,
        "lastSeq": stream.last_seq,
        "ackedSeq": stream.acked_seq,
        "waitingSince": optional_rfc3339(stream.head_since),
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
    """One try to send one message."""
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
