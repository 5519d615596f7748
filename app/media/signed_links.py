"""Short-lived signed links to one media item's content, for `<img>` and `<video>`, which cannot send a header.

A link names the media item and the user it was made for, signed with a key that all processes share; nothing is stored
for it. Times come from the database's clock.
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
    """A signature and its expiry in seconds since 1970."""

    signature: str
    expires_at: float


class MediaLinks:
    """Creates and verifies signatures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sign(self, media_id: str, user_id: str) -> MediaLink:
        """Return a link to the media item for that user, valid for LIFETIME_SECONDS."""
        key, now = self._key_and_time()
        if key is None:
            key = updates.make_shared_key(self._database, PURPOSE)
        signature = _serializer(key, now).dumps([media_id, user_id])
        return MediaLink(str(signature), now + LIFETIME_SECONDS)

    def user_of(self, media_id: str, signature: str) -> str:
        """Return the user that the link was made for. Raises Unauthorized if it is invalid or expired."""
        key, now = self._key_and_time()
        if key is None:
            raise _invalid_link()
        try:
            signed_for, user_id = _serializer(key, now).loads(signature, max_age=LIFETIME_SECONDS)
        except SignatureExpired as error:
            raise Unauthorized("The link has expired; request a new one.") from error
        except BadSignature as error:
            raise _invalid_link() from error
        if signed_for != media_id:
            raise _invalid_link()
        return str(user_id)

    def _key_and_time(self) -> tuple[str | None, int]:
        return Queries(self._database).fetch(_key_and_time, self._database.now)


def _key_and_time(session: Session, now: ColumnElement[float]) -> tuple[str | None, int]:
    return shared_keys.find(session, PURPOSE), int(session.scalars(select(now)).one())


class _SignerAt(TimestampSigner):
    """A signer with a fixed time."""

    def __init__(self, *arguments: Any, now: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._now = now

    def get_timestamp(self) -> int:
        return self._now


def _serializer(key: str, now: int) -> URLSafeTimedSerializer:
    options = {"now": now, "key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(key, salt=PURPOSE, signer=_SignerAt, signer_kwargs=options)


def _invalid_link() -> Unauthorized:
    return Unauthorized("The link's signature is not valid for this media item; request a new link.")
