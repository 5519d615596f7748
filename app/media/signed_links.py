"""Short-lived links to the bytes of one media, for who cannot send a header: the `<img>` and `<video>` of a page.

A link says which media, and for which user it was made, under a signature by a key that all processes share; nothing
is stored for it. Time is the database's, which all processes and hosts share too.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadSignature, SignatureExpired, TimestampSigner, URLSafeTimedSerializer
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.database import Database, Queries, shared_keys
from app.errors import Unauthorized
from app.media import updates

PURPOSE = "media-links"
LIFETIME_SECONDS = 900


@dataclass(frozen=True, slots=True)
class MediaLink:
    """`expires_at` is in seconds since 1970."""

    signature: str
    expires_at: float


class MediaLinks:
    """Makes and checks the signatures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sign(self, media_id: str, user_id: str) -> MediaLink:
        """A link to that media for that user, good for LIFETIME_SECONDS."""
        key, now = self._key_and_time()
        if key is None:
            key = updates.make_shared_key(self._database, PURPOSE)
        signature = _serializer(key, now).dumps([media_id, user_id])
        return MediaLink(str(signature), now + LIFETIME_SECONDS)

    def user_of(self, media_id: str, signature: str) -> str:
        """For whom the link to that media was made; raises Unauthorized for one that is not good, or no longer."""
        key, now = self._key_and_time()
        if key is None:
            raise _refusal()
        try:
            signed_for, user_id = _serializer(key, now).loads(signature, max_age=LIFETIME_SECONDS)
        except SignatureExpired as error:
            raise Unauthorized("The link has expired; ask for a new one.") from error
        except BadSignature as error:
            raise _refusal() from error
        if signed_for != media_id:
            raise _refusal()
        return str(user_id)

    def _key_and_time(self) -> tuple[str | None, int]:
        return Queries(self._database).fetch(_key_and_time, self._database.now)


def _key_and_time(session: Session, now: ColumnElement[float]) -> tuple[str | None, int]:
    return shared_keys.find(session, PURPOSE), int(session.scalars(select(now)).one())


class _SignerAt(TimestampSigner):
    """Takes its time from whoever makes it."""

    def __init__(self, *arguments: Any, now: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._now = now

    def get_timestamp(self) -> int:
        return self._now


def _serializer(key: str, now: int) -> URLSafeTimedSerializer:
    options = {"now": now, "key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(key, salt=PURPOSE, signer=_SignerAt, signer_kwargs=options)


def _refusal() -> Unauthorized:
    return Unauthorized("The link's signature is not good for this media; ask for a new link.")
