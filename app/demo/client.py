"""What a client of the service does, over real HTTP: uploads a photo, asks how its messages fare."""

import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
import requests

from app.demo.process import StepFailed

_PATIENCE_SECONDS = 30.0
_TOKEN_SECONDS = 24 * 3600


def user_token(secret: str, *, is_admin: bool = False) -> str:
    """A token such as the suite's issuer gives its users, for one day; or that of somebody who may look at the outbox
    and repair it, as JWT_ADMIN_CLAIM has it."""
    claims = {"sub": "grace", "roles": ["admin"]} if is_admin else {"sub": "ada"}
    return jwt.encode({**claims, "exp": int(time.time()) + _TOKEN_SECONDS}, secret)


class Client:
    """One user at one service. Each call raises StepFailed where the answer is not the expected one."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    def upload(self, photo: Path) -> dict[str, Any]:
        """Upload to POST /detect; returns the answer's document, of a finished run."""
        with photo.open("rb") as content:
            answer = self._ask("POST", "/detect", HTTPStatus.CREATED, files={"file": (photo.name, content)})
        run = answer["media"]["run"]
        if run["state"] != "done":
            raise StepFailed(f"its detection is {run['state']}: {run['error']}")
        return answer

    def media(self, media_id: str) -> dict[str, Any]:
        """The record as GET /media/{id} shows it."""
        return self._ask("GET", f"/media/{media_id}", HTTPStatus.OK)

    def outbox(self) -> dict[str, Any]:
        """How the outbox stands, for an administrator."""
        return self._ask("GET", "/outbox", HTTPStatus.OK)

    def _ask(self, method: str, path: str, expected: HTTPStatus, **options: Any) -> dict[str, Any]:
        # A session for each call, which may come from any thread; none heeds the environment's proxies.
        with requests.Session() as session:
            session.trust_env = False
            url, headers = self._url + path, self._headers
            answer = session.request(method, url, headers=headers, timeout=_PATIENCE_SECONDS, **options)
        if answer.status_code != expected:
            raise StepFailed(f"{method} {path} answered {answer.status_code} {answer.reason}: {answer.text.strip()}")
        document: dict[str, Any] = answer.json()
        return document


def answers(url: str) -> bool:
    """Whether a GET of this address is answered with 200 now."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=_PATIENCE_SECONDS).status_code == HTTPStatus.OK
        except requests.ConnectionError:
            return False
