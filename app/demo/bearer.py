"""Whose request it is: the reference annotations service's reading of the Authorization header."""

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

from app.demo.rules import Refusal

MAX_DELEGATED_SECONDS = 300
LEEWAY_SECONDS = 10
ACTOR = {"sub": "detections"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `delegated` says that the detections service acts for that identity; a static token has none."""

    identity: str | None
    delegated: bool


@dataclass(frozen=True, slots=True)
class BearerRule:
    """Which tokens are accepted: JWTs of HS256 with this secret, valid by `clock`, or one exact text."""

    secret: str
    static_token: str | None = None
    identity_claim: str = "sub"
    audience: str | None = None
    issuer: str | None = None
    clock: Callable[[], float] = time.time

    def caller(self, authorization: str | None) -> Caller:
        """Return who calls by the header's value. Raises Refusal (401) where there is no acceptable token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("A bearer token is needed.")
        if self.static_token is not None and hmac.compare_digest(token.encode(), self.static_token.encode()):
            return Caller(identity=None, delegated=False)
        return self._from_jwt(token)

    def _from_jwt(self, token: str) -> Caller:
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                audience=self.audience,
                issuer=self.issuer,
                options={
                    "require": ["exp"],
                    "verify_aud": self.audience is not None,
                    "verify_exp": False,  # the times are judged below, by our own clock
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            self._check_times(claims)
        except jwt.InvalidTokenError as error:
            raise _unauthorized(f"The token is not acceptable: {error}.") from error
        identity = claims.get(self.identity_claim)
        if not isinstance(identity, str) or not identity:
            raise _unauthorized(f"The token's {self.identity_claim!r} is not a text with an identity.")
        if "act" not in claims:
            return Caller(identity, delegated=False)
        if claims["act"] != ACTOR:
            raise _unauthorized("The token's 'act' names another actor than detections.")
        if int(claims["exp"]) - self.clock() > MAX_DELEGATED_SECONDS + LEEWAY_SECONDS:
            raise _unauthorized(f"A token with 'act' may last at most {MAX_DELEGATED_SECONDS} seconds.")
        return Caller(identity, delegated=True)

    def _check_times(self, claims: dict[str, Any]) -> None:
        now = self.clock()
        if _seconds(claims, "exp", now) <= now - LEEWAY_SECONDS:
            raise jwt.ExpiredSignatureError("it has expired")
        for name in ("iat", "nbf"):
            if _seconds(claims, name, now) > now + LEEWAY_SECONDS:
                raise jwt.ImmatureSignatureError(f"its {name!r} is yet to come")


def _seconds(claims: dict[str, Any], name: str, otherwise: float) -> float:
    try:
        return int(claims.get(name, otherwise))
    except (TypeError, ValueError, OverflowError) as error:
        raise jwt.DecodeError(f"{name!r} must be a number") from error


def _unauthorized(detail: str) -> Refusal:
    return Refusal(401, "unauthorized", detail)
