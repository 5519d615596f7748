"""The tokens with which the dispatcher speaks to the annotations service.

A token is made for each send and kept nowhere, so that none can be found at rest, and none goes stale in a backlog.
No secret and no token appears in a repr or in the text of an error.
"""

import time
from collections.abc import Callable
from typing import Protocol

import jwt

from app.errors import SettingsError

MAX_LIFETIME_SECONDS = 300
ACTOR = "detections"
"""What the claim `act.sub` of a minted token says: who acts for its user."""

RESERVED_CLAIMS = frozenset({"act", "aud", "exp", "iat", "iss", "jti", "nbf"})


class TokenSource(Protocol):
    """Where a token for one send comes from; `is_one_for_all` says that it is the same for every user."""

    @property
    def is_one_for_all(self) -> bool: ...

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        """A token to act for that user; `fresh` says that the one given before was refused."""
        ...


class StaticToken:
    """One token for every user, as the settings give it; raises SettingsError if it cannot stand in a header."""

    is_one_for_all = True

    def __init__(self, token: str) -> None:
        if not token or not all("!" <= character <= "~" for character in token):
            raise SettingsError("ANNOTATIONS_TOKEN must be printable ASCII without spaces.")
        self._token = token

    def token_for(self, user_id: str, *, fresh: bool = False) -> str:
        """The one token: there is no fresher one."""
        return self._token

    def __repr__(self) -> str:
        return "StaticToken(…)"


class MintedTokens:
    """Tokens signed with the secret that the suite shares, each valid for `lifetime` seconds from its `iat`.

    `identity_claim` carries the user, `act.sub` says that this service acts for them. A fifth of the lifetime lies in
    the past when the token is made: a service whose clock is behind ours by less than that still takes it. A clock
    further off cannot be helped: dating tokens by the other side's word would let it ask for one that never expires.
    """

    is_one_for_all = False

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
        """A new token each time (about 15 µs), so a fresh one differs only in its times."""
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
