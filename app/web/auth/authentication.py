"""From a bearer token to the user's identity. Tokens come from the suite's own issuer: claims that only
flask-jwt-extended writes (`type`, `fresh`, `jti`) may be absent, but an expiry must be there."""

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
from app.web.auth.known_tokens import Bearer, KnownTokens
from app.web.problems import refuse_other_schemas

EXTENSION = "detections-known-tokens"
LEEWAY_SECONDS = 30
MAX_IDENTITY = 255
MAX_TOKEN_BYTES = 16_384
SCHEME = "Bearer"


def install(app: Flask, tokens: TokenSettings) -> None:
    """Have flask-jwt-extended check tokens as the settings say."""
    app.config.update(
        JWT_TOKEN_LOCATION=["headers"],
        JWT_ALGORITHM=tokens.algorithm,
        JWT_DECODE_ALGORITHMS=[tokens.algorithm],
        JWT_IDENTITY_CLAIM=tokens.identity_claim,
        JWT_DECODE_AUDIENCE=tokens.audience,
        JWT_DECODE_ISSUER=tokens.issuer,
        JWT_DECODE_LEEWAY=LEEWAY_SECONDS,
        JWT_VERIFY_SUB=False,  # it need not be the identity, which is looked at below
        JWT_KEYS=tokens.keys,
        JWT_ADMIN_CLAIM=tokens.admin_claim,
    )
    manager = JWTManager(app)
    app.extensions[EXTENSION] = KnownTokens()
    if tokens.jwks_url is not None:
        published = PublishedKeys(IssuerDocument(tokens.jwks_url, LOOK_SECONDS).fetch, tokens.algorithm)

        @manager.decode_key_loader
        def _key_by_id(header: dict[str, Any], _payload: dict[str, Any]) -> Any:
            if header.get("alg") != tokens.algorithm:  # no reason to ask the issuer for a key
                raise Unauthorized(f"The token was not accepted: its algorithm is not {tokens.algorithm}.")
            return published.key(header.get("kid"))

    else:

        @manager.decode_key_loader
        def _key_at_hand(_header: dict[str, Any], _payload: dict[str, Any]) -> str:
            return str(g.jwt_key)


def authenticate() -> None:
    """Check the request's token before anything of its body is read; the identity is then `g.user_id`, and whether
    it is an administrator's `g.is_admin`.

    OPTIONS is answered without one, as browsers ask it. Raises Unauthorized, or Unavailable where the issuer's keys
    cannot be fetched.
    """
    if request.method == "OPTIONS":
        return  # flask-jwt-extended looks at none either; Flask answers it by itself, and no view is reached
    refuse_other_schemas()
    authorization = request.headers.get("Authorization", "")
    if len(authorization) > MAX_TOKEN_BYTES:
        raise Unauthorized("The token is too long.")
    if "," in authorization:  # how servers hand on a header that came twice; no token has one
        raise Unauthorized("There must be one Authorization header with one token.")
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == SCHEME.lower():  # RFC 9110 has schemes in any case; flask-jwt-extended has one spelling
        authorization = request.environ["HTTP_AUTHORIZATION"] = f"{SCHEME} {credentials}"
    known: KnownTokens = current_app.extensions[EXTENSION]
    bearer = known.bearer(authorization)
    if bearer is None:
        claims = _verified_claims()
        _refuse_minted(claims)
        bearer = Bearer(_identity(claims), _is_admin(claims))
        known.note(authorization, bearer, int(claims["exp"]) + LEEWAY_SECONDS)
    g.user_id, g.is_admin = bearer.user_id, bearer.is_admin


def _verified_claims() -> dict[str, Any]:
    try:
        _verify_signature()
    except (JWTExtendedException, PyJWTError) as error:
        raise Unauthorized(f"The token was not accepted: {error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # what hostile tokens make of a parser
        raise Unauthorized("The token was not accepted: it is malformed.") from error
    return get_jwt()


def _verify_signature() -> None:
    """Raises what the last of the keys raises, where none has signed the token."""
    *others, last = current_app.config["JWT_KEYS"] or (None,)
    for g.jwt_key in others:
        with suppress(InvalidSignatureError):
            verify_jwt_in_request()
            return
    g.jwt_key = last
    verify_jwt_in_request()


def _refuse_minted(claims: dict[str, Any]) -> None:
    """Raise Unauthorized for a token that this service signed for the annotations service: whoever takes it from there
    must not act as its user here."""
    actor = claims.get("act")
    if isinstance(actor, dict) and actor.get("sub") == ACTOR:
        raise Unauthorized("The token was not accepted: this service made it for the annotations service.")


def authenticate_admin() -> None:
    """As `authenticate`; raises Forbidden where the token is not an administrator's."""
    authenticate()
    if request.method != "OPTIONS" and not g.is_admin:
        claim, value = current_app.config["JWT_ADMIN_CLAIM"]
        raise Forbidden(f"This needs a token whose claim {claim!r} contains {value!r}.")


def _is_admin(claims: dict[str, Any]) -> bool:
    name, wanted = current_app.config["JWT_ADMIN_CLAIM"]
    held = claims.get(name)
    if isinstance(held, str):
        return held == wanted or wanted in held.split()
    return isinstance(held, list) and wanted in held


def _identity(claims: dict[str, Any]) -> str:
    if "exp" not in claims:
        raise Unauthorized("The token was not accepted: it has no exp.")
    name = current_app.config["JWT_IDENTITY_CLAIM"]
    identity = claims.get(name)
    if not isinstance(identity, str) or not identity.strip():
        raise Unauthorized(f"The token was not accepted: its {name} is not a text.")
    if len(identity) > MAX_IDENTITY or not identity.isprintable():
        raise Unauthorized(
            f"The token was not accepted: its {name} is not {MAX_IDENTITY} printable characters at most."
        )
    return identity
