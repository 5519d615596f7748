"""`flask token`: a bearer token for testing, if the service has the secret that signs tokens."""

import time

import click
import jwt
from flask.cli import with_appcontext

from app.cli.error_handling import Command
from app.cli.output import json_option, show_json
from app.cli.usage import usage
from app.current import get_services
from app.formats.timestamps import rfc3339
from app.settings import TokenSettings

MAX_MINUTES = 24 * 60
MAX_USER = 255
RESERVED_CLAIMS = ("aud", "exp", "iat", "iss")


@click.command(
    cls=Command,
    epilog=usage(
        "flask token ada",
        "flask token ada --admin --minutes 15",
        'curl -H "Authorization: Bearer $(flask token ada)" localhost:8000/media',
        exits={0: "printed", 1: "JWT_SECRET_KEY is not set, or a setting is invalid"},
    ),
)
@click.argument("user")
@click.option("--admin", is_flag=True, help="Add the claim of JWT_ADMIN_CLAIM.")
@click.option("--minutes", type=click.IntRange(1, MAX_MINUTES), default=60, show_default=True, help="Lifetime.")
@json_option
@with_appcontext
def token(user: str, admin: bool, minutes: int, as_json: bool) -> None:
    """Print a token for USER, signed with JWT_SECRET_KEY. For development only: the issuer makes the real ones."""
    if not user.strip() or len(user) > MAX_USER or not user.isprintable():
        raise click.BadParameter(f"must be 1 to {MAX_USER} printable characters, not {user!r}.", param_hint="USER")
    tokens = get_services().settings.tokens
    if tokens.secret is None:
        raise click.ClickException("JWT_SECRET_KEY is not set, so no token can be made here; get one from the issuer.")
    now = int(time.time())
    expires_at = now + minutes * 60
    claims = _claims(tokens, user, admin=admin) | {"iat": now, "exp": expires_at}
    signed = jwt.encode(claims, tokens.secret, algorithm=tokens.algorithm)
    if as_json:
        show_json({"token": signed, "userId": user, "admin": admin, "expiresAt": rfc3339(expires_at)})
    else:
        click.echo(signed)


def _claims(tokens: TokenSettings, user: str, *, admin: bool) -> dict[str, object]:
    addressing = {name: value for name, value in (("aud", tokens.audience), ("iss", tokens.issuer)) if value}
    claims: dict[str, object] = {**addressing, tokens.identity_claim: user}
    if admin:
        name, value = tokens.admin_claim
        if name in (*RESERVED_CLAIMS, tokens.identity_claim):
            raise click.ClickException(f"JWT_ADMIN_CLAIM names {name}, which is a reserved claim.")
        claims[name] = [value]
    return claims
