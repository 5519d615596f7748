"""A running reference service for each test, and a sender that follows the contract unless told otherwise."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
import requests

from tests.reference.service import ReferenceService

SECRET = "a secret of the tests that is long enough"
MEDIA_ID = "0123456789abcdef"


def record(media_id: str = MEDIA_ID, **changes: Any) -> dict[str, Any]:
    """A create's body as the contract has it, with these fields changed."""
    body = {
        "id": media_id,
        "name": "holiday.jpg",
        "path": f"/srv/images/{media_id}.jpg",
        "mediaType": "Image",
        "mediaStatus": 1,
        "userId": "ada",
    }
    return body | changes


def token(secret: str = SECRET, **changes: Any) -> str:
    """A token as the dispatcher mints it; a claim that is changed to None is left out."""
    claims = {"sub": "ada", "exp": int(time.time()) + 290, "act": {"sub": "detections"}} | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret)


@dataclass
class Sender:
    """Sends over one connection. A header given as None is left out."""

    url: str
    session: requests.Session
    timeout: float = 10

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, Any] | None = None
    ) -> requests.Response:
        given = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"} | (headers or {})
        data = None if body is None else json.dumps(body).encode()
        return self.session.request(method, self.url + path, data=data, headers=given, timeout=self.timeout)

    def create(self, body: Any = None, *, seq: Any = 1, key: str | None = None, **headers: Any) -> requests.Response:
        message = {"X-Outbox-Seq": str(seq), "Idempotency-Key": key or str(uuid4())}
        return self.send("POST", "/api/media", record() if body is None else body, message | headers)

    def status(
        self, status: Any, *, seq: Any, key: str | None = None, media_id: str = MEDIA_ID, **headers: Any
    ) -> requests.Response:
        message = {"X-Outbox-Seq": str(seq), "Idempotency-Key": key or str(uuid4())}
        body = {"mediaStatus": status} if isinstance(status, int) else status
        return self.send("PUT", f"/api/media/{media_id}/status", body, message | headers)


def assert_problem(answer: requests.Response, status: int, kind: str, field: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith(f"/{kind}")
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["requestId"]
    assert problem.get("field") == field


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as running:
        yield running


@pytest.fixture
def sender(service: ReferenceService) -> Iterator[Sender]:
    with requests.Session() as session:
        session.trust_env = False
        yield Sender(service.url, session)
