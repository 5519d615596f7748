"""The tables. Times are seconds since 1970 UTC on the database's clock.

Each rule that stored rows must satisfy is a named constraint, so that no code can violate it.
"""

from app.database.models.base import Base
from app.database.models.media import Media, MediaStatus
from app.database.models.outbox import OutboxAttempt, OutboxCircuit, OutboxHold, OutboxMessage, OutboxStream
from app.database.models.runs import Detection, DetectionRun, RunFailure, RunState
from app.database.models.service import CounterShard, DatabaseInstance, ResumableUpload, SharedKey

__all__ = [
    "Base",
    "CounterShard",
    "DatabaseInstance",
    "Detection",
    "DetectionRun",
    "Media",
    "MediaStatus",
    "OutboxAttempt",
    "OutboxCircuit",
    "OutboxHold",
    "OutboxMessage",
    "OutboxStream",
    "ResumableUpload",
    "RunFailure",
    "RunState",
    "SharedKey",
]
