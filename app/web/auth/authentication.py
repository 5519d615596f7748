"""Verifies bearer tokens and identifies their users.

Tokens come from another issuer: claims that only flask-jwt-extended writes (`type`, `fresh`, `jti`) may be absent, but
`exp` is required.
"""

from contextlib import suppress
from typing import Any

from flask import Flask, current_app, g, request
from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import InvalidSignatureError, PyJWTError

from app.annotations.tokens import ACTOR
from app.errors import Forbidden, Unauthorized
from app.settings import TokenSettings
from app.web.auth.jwks import LOOK_SECONDS, PublishedKeys
from app.web.auth.jwks_document import IssuerDocument
from app.web.auth.token_cache import Bearer, TokenCache
from app.web.problems import check_schema

EXTENSION = "detections-token-cache"
LEEWAY_SECONDS = 30
MAX_IDENTITY = 255
MAX_TOKEN_BYTES = 16_384
SCHEME = "Bearer"


def install(app: Flask, tokens: TokenSettings) -> None:
    """Configure flask-jwt-extended from the settings."""
    app.config.update(
        JWT_TOKEN_LOCATION=["headers"],
        JWT_ALGORITHM=tokens.algorithm,
        JWT_DECODE_ALGORITHMS=[tokens.algorithm],
        JWT_IDENTITY_CLAIM=tokens.identity_claim,
        JWT_DECODE_AUDIENCE=tokens.audience,
        JWT_DECODE_ISSUER=tokens.issuer,
        JWT_DECODE_LEEWAY=LEEWAY_SECONDS,
        JWT_VERIFY_SUB=False,  # the identity may be another claim, which `_identity` checks
        JWT_KEYS=tokens.keys,
        JWT_ADMIN_CLAIM=tokens.admin_claim,
    )
    manager = JWTManager(app)
    app.extensions[EXTENSION] = TokenCache()
    if tokens.jwks_url is not None:
        published = PublishedKeys(IssuerDocument(tokens.jwks_url, LOOK_SECONDS).fetch, tokens.algorithm)

        @manager.decode_key_loader
        def _key_by_id(header: dict[str, Any], _payload: dict[str, Any]) -> Any:
            if header.get("alg") != tokens.algorithm:  # do not query the issuer for it
                raise Unauthorized(f"The token was not accepted: its algorithm is not {tokens.algorithm}.")
            return published.key(header.get("kid"))

    else:

        @manager.decode_key_loader
        def _key_at_hand(_header: dict[str, Any], _payload: dict[str, Any]) -> str:
            return str(g.jwt_key)


def authenticate() -> None:
    """Check the request's token before its body is read, and set `g.user_id` and `g.is_admin`.

    OPTIONS needs no token, because browsers send none. Raises Unauthorized, or Unavailable if the issuer's keys cannot
    be fetched.
    """
    if request.method == "OPTIONS":
        return  # Flask answers it without calling a view
    check_schema()
    authorization = request.headers.get("Authorization", "")
    if len(authorization) > MAX_TOKEN_BYTES:
        raise Unauthorized("The token is too long.")
    if "," in authorization:  # servers join repeated headers with a comma, which no token contains
        raise Unauthorized("Exactly one Authorization header with one token is required.")
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == SCHEME.lower():  # schemes are case-insensitive (RFC 9110), but not in flask-jwt-extended
        authorization = request.environ["HTTP_AUTHORIZATION"] = f"{SCHEME} {credentials}"
    cache: TokenCache = current_app.extensions[EXTENSION]
    bearer = cache.get(authorization)
    if bearer is None:
        claims = _verified_claims()
        _refuse_minted(claims)
        bearer = Bearer(_identity(claims), _is_admin(claims))
        cache.put(authorization, bearer, int(claims["exp"]) + LEEWAY_SECONDS)
    g.user_id, g.is_admin = bearer.user_id, bearer.is_admin


def _verified_claims() -> dict[str, Any]:
    try:
        _verify_signature()
    except (JWTExtendedException, PyJWTError) as error:
        raise Unauthorized(f"The token was not accepted: {error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # raised by parsers for malformed tokens
        raise Unauthorized("The token was not accepted: it is malformed.") from error
    return get_jwt()


def _verify_signature() -> None:
    """Verify the token with each key in turn. Raises what the last key raises."""
    *others, last = current_app.config["JWT_KEYS"] or (None,)
    for g.jwt_key in others:
        with suppress(InvalidSignatureError):
            verify_jwt_in_request()
            return
    g.jwt_key = last
    verify_jwt_in_request()


def _refuse_minted(claims: dict[str, Any]) -> None:
    """Raise Unauthorized for a token that this service signed for the annotations service.

    Whoever obtains such a token there must not act as its user here.
    """
    actor = claims.get("act")
    if isinstance(actor, dict) and actor.get("sub") == ACTOR:
        raise Unauthorized("The token was not accepted: this service issued it for the annotations service.")


def authenticate_admin() -> None:
    """Authenticate, and raise Forbidden unless the token is an administrator's."""
    authenticate()
    if request.method != "OPTIONS" and not g.is_admin:
        claim, value = current_app.config["JWT_ADMIN_CLAIM"]
        raise Forbidden(f"A token whose claim {claim!r} contains {value!r} is required.")


def _is_admin(claims: dict[str, Any]) -> bool:
    name, required = current_app.config["JWT_ADMIN_CLAIM"]
    claim = claims.get(name)
    if isinstance(claim, str):
        return claim == required or required in claim.split()
    return isinstance(claim, list) and required in claim


def _identity(claims: dict[str, Any]) -> str:
    if "exp" not in claims:
        raise Unauthorized("The token was not accepted: it has no exp.")
    name = current_app.config["JWT_IDENTITY_CLAIM"]
    identity = claims.get(name)
    if not isinstance(identity, str) or not identity.strip():
        raise Unauthorized(f"The token was not accepted: its {name} is not a string.")
    if len(identity) > MAX_IDENTITY or not identity.isprintable():
        raise Unauthorized(
            f"The token was not accepted: its {name} is not at most {MAX_IDENTITY} printable characters."
        )
    return identity
