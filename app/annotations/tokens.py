"""The tokens for requests to the annotations service.

A token is minted for each request and stored nowhere, so none can leak from the database or expire in the outbox. No
secret or token appears in a repr or in an error's text.
"""

import time
from collections.abc import Callable
from typing import Protocol

import jwt

from app.errors import SettingsError

MAX_LIFETIME_SECONDS = 300
ACTOR = "detections"
"""The claim `act.sub` of a minted token: the service that acts for the user."""

RESERVED_CLAIMS = frozenset({"act", "aud", "exp", "iat", "iss", "jti", "nbf"})


class TokenSource(Protocol):
    """A source of tokens; `is_shared` says that all users have the same token."""

    @property
    def is_shared(self) -> bool: ...

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        """Return a token to act for a user; `fresh` says that the previous one was refused."""
        ...


class StaticToken:
    """One token for all users, from the settings. Raises SettingsError if it is not fit for a header."""

    is_shared = True

    def __init__(self, token: str) -> None:
        if not token or not all("!" <= character <= "~" for character in token):
            raise SettingsError("ANNOTATIONS_TOKEN must be printable ASCII without spaces.")
        self._token = token

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        """Return the token; there is no fresher one."""
        return self._token

    def __repr__(self) -> str:
        return "StaticToken(…)"


class MintedTokens:
    """Tokens signed with the suite's shared secret, valid for `lifetime` seconds from `iat`.

    `identity_claim` names the claim with the user id; `act.sub` says that this service acts for the user. `iat` is a
    fifth of the lifetime in the past, so that a service whose clock is behind by less than that accepts the token.
    Tokens are never dated by the other side's clock, because it could then ask for one that never expires.
    """

    is_shared = False

    def __init__(
        self,
        secret: str,
        algorithm: str = "HS256",
        identity_claim: str = "sub",
        audience: str | None = None,
        issuer: str | None = None,
        *,
        lifetime: int = MAX_LIFETIME_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < lifetime <= MAX_LIFETIME_SECONDS:
            raise ValueError(f"A token lives 1 to {MAX_LIFETIME_SECONDS} seconds, not {lifetime}.")
        if identity_claim in RESERVED_CLAIMS:
            raise SettingsError(f"JWT_IDENTITY_CLAIM must not be {identity_claim}, which has a meaning of its own.")
        self._secret = secret
        self._algorithm = algorithm
        self._identity_claim = identity_claim
        self._addressing = {name: value for name, value in (("aud", audience), ("iss", issuer)) if value}
        self._lifetime = lifetime
        self._clock = clock

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        """Return a new token; minting takes about 15 µs, so tokens are not cached."""
        issued_at = int(self._clock()) - self._lifetime // 5
        claims = {
            **self._addressing,
            self._identity_claim: user_id,
            "act": {"sub": ACTOR},
            "iat": issued_at,
            "exp": issued_at + self._lifetime,
        }
        return jwt.encode(claims, self._secret, algorithm=self._algorithm)

    def __repr__(self) -> str:
        return f"MintedTokens({self._algorithm}, {self._identity_claim})"
