"""Fixtures: messages, and a client that is closed at the end."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.annotations import AnnotationsClient
from app.annotations.tokens import StaticToken
from app.outbox.messages import Message, MessageKind

MEDIA = "0123456789abcdef"
TOKEN = "s3cret-token-of-the-dispatcher/+=" + "x" * 40

MakeClient = Callable[..., AnnotationsClient]


def message(kind: MessageKind = MessageKind.CREATE, **changes: Any) -> Message:
    payload: dict[str, Any] = {"mediaStatus": 2}
    if kind is MessageKind.CREATE:
        payload = {
            "id": MEDIA,
            "name": "Zürich.jpg",
            "path": f"/srv/images/{MEDIA}.jpg",
            "mediaType": "Image",
            "mediaStatus": 1,
            "userId": "ada",
        }
    fields: dict[str, Any] = {
        "media_id": MEDIA,
        "seq": 1 if kind is MessageKind.CREATE else 2,
        "kind": kind,
        "payload": payload,
        "idempotency_key": "8d0f8d9e-5a5b-4f5e-9d3c-0a1b2c3d4e5f",
        "user_id": "ada",
        "request_id": "request-7",
    }
    return Message(**(fields | changes))


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    with contextlib.ExitStack() as closing:

        def make(url: str, **options: Any) -> AnnotationsClient:
            options.setdefault("tokens", StaticToken(TOKEN))
            options.setdefault("deadline_seconds", 5.0)
            return closing.enter_context(contextlib.closing(AnnotationsClient(url, **options)))

        yield make
