"""The JSON of media items, runs and results in the API."""

from collections.abc import Iterable
from typing import Any

from app.database.models import DetectionRun, OutboxStream, RunState
from app.detection.results import FrameResult
from app.formats.timestamps import optional_rfc3339 as timestamp
from app.queries.media_items import MediaView


def media(view: MediaView) -> dict[str, Any]:
    """Serialize a media item with its last run and its delivery state."""
    row = view.media
    return {
        "id": row.id,
        "name": row.name,
        "mediaType": row.media_type,
        "mediaStatus": row.media_status,
        "userId": row.user_id,
        "sizeBytes": row.size_bytes,
        "checksum": row.checksum,
        "createdAt": timestamp(row.created_at),
        "run": run(view.run, view.all_blocked_reason),
        "delivery": delivery(view.stream),
    }


def run(row: DetectionRun | None, all_blocked_reason: str | None = None) -> dict[str, Any] | None:
    """Serialize a run; `all_blocked_reason` is the reason that blocks all detection."""
    if row is None:
        return None
    return {
        "id": row.id,
        "detector": row.detector,
        "state": row.state,
        "framesDone": row.frames_done,
        "framesTotal": row.frames_total,
        "packetsSkipped": row.packets_skipped,
        "startedAt": timestamp(row.started_at),
        "finishedAt": timestamp(row.finished_at),
        "waitingFor": row.waiting_for or (all_blocked_reason if row.state == RunState.QUEUED else None),
        "error": row.error,
        "warnings": row.warnings or [],
    }


def delivery(stream: OutboxStream | None) -> dict[str, Any]:
    """Serialize the delivery state of a stream; an adopted media item may have none."""
    if stream is None:
        return {
            "pending": 0,
            "delivered": 0,
            "parked": False,
            "attempts": 0,
            "nextAttemptAt": None,
            "lastError": None,
            "waiting": None,
        }
    return {
        "pending": stream.last_seq - stream.acked_seq,
        "delivered": stream.acked_seq,
        "parked": stream.parked_at is not None,
        "attempts": stream.attempts,
        "nextAttemptAt": None if stream.lease_owner else timestamp(stream.due_at),
        "lastError": stream.park_reason or stream.last_error,
        "waiting": _waiting(stream),
    }


def _waiting(stream: OutboxStream) -> dict[str, Any] | None:
    """Serialize the head message: since when it waits, whether it is being sent, and the last status answered."""
    if stream.last_seq == stream.acked_seq:
        return None
    return {
        "seq": stream.acked_seq + 1,
        "since": timestamp(stream.waiting_since),
        "sending": stream.lease_owner is not None,
        "parkedAt": timestamp(stream.parked_at),
        "lastStatus": stream.last_status,
    }


def detections(results: Iterable[FrameResult]) -> list[dict[str, Any]]:
    """Serialize results by frame, as the API's "annotations": boxes in fractions of the upright picture, seconds."""
    return [
        {
            "frame": result.index,
            "time": round(result.time, 6),
            "sourceFrame": result.source_frame,
            "detections": [
                {
                    "classNum": found.class_num,
                    "label": found.label,
                    "confidence": round(found.confidence, 4),
                    "centerX": round(found.center_x, 6),
                    "centerY": round(found.center_y, 6),
                    "width": round(found.width, 6),
                    "height": round(found.height, 6),
                }
                for found in result.objects
            ],
        }
        for result in results
    ]
