"""`flask token`: its tokens are accepted as the settings require, and expire."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cli.conftest import Shell
from tests.cli.terminal import piped
from tests.system.service import SECRET

LONG = "long enough for the longest of the algorithms: " + "x" * 64
ADDRESSED = {"JWT_AUDIENCE": "detections", "JWT_ISSUER": "suite", "JWT_ALGORITHM": "HS512", "JWT_IDENTITY_CLAIM": "uid"}


def claims(token: str, algorithm: str = "HS256", secret: str = SECRET) -> dict[str, Any]:
    return jwt.decode(token, secret, algorithms=[algorithm], options={"verify_aud": False})


def test_the_token_opens_the_service_for_that_user(lonely_shell: Shell) -> None:
    token = lonely_shell.run("token", "grace").stdout.strip()
    answer = lonely_shell.api.get("/media", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert claims(token).keys() == {"sub", "iat", "exp"}
    assert claims(token)["sub"] == "grace"


def test_the_token_lives_as_long_as_asked_and_a_day_at_most(lonely_shell: Shell) -> None:
    lives = claims(lonely_shell.run("token", "ada", "--minutes", "15").stdout.strip())["exp"] - time.time()
    assert 14 * 60 < lives <= 15 * 60
    lonely_shell.run("token", "ada", "--minutes", "1441", exit_code=2)
    lonely_shell.run("token", "ada", "--minutes", "0", exit_code=2)


def test_the_token_is_addressed_and_signed_as_configured(lonely_shell: Shell) -> None:
    shell = Shell(lonely_shell.settings | ADDRESSED | {"JWT_SECRET_KEY": LONG})
    try:
        token = shell.json("token", "grace")["token"]
        told = claims(token, "HS512", LONG)
        assert told["uid"] == "grace"
        assert told["aud"] == "detections"
        assert told["iss"] == "suite"
        assert shell.api.get("/media", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    finally:
        shell.api.close()


@pytest.mark.parametrize(
    ("setting", "claim", "value"), [(None, "roles", ["admin"]), ("groups=ops team", "groups", ["ops team"])]
)
def test_an_administrator_s_token_has_the_claim_that_is_configured(
    lonely_shell: Shell, setting: str | None, claim: str, value: list[str]
) -> None:
    shell = Shell(lonely_shell.settings | ({"JWT_ADMIN_CLAIM": setting} if setting else {}))
    try:
        assert claims(shell.run("token", "ada", "--admin").stdout.strip())[claim] == value
        assert claim not in claims(shell.run("token", "ada").stdout.strip())
    finally:
        shell.api.close()


def test_an_admin_claim_that_has_a_meaning_of_its_own_is_refused(lonely_shell: Shell) -> None:
    shell = Shell(lonely_shell.settings | {"JWT_ADMIN_CLAIM": "sub=admin"})
    try:
        assert "JWT_ADMIN_CLAIM" in shell.run("token", "ada", "--admin", exit_code=1).stderr
    finally:
        shell.api.close()


@pytest.mark.parametrize("user", ["", "  ", "two\nlines", "x" * 256])
def test_a_name_that_no_service_takes_is_wrong_usage(lonely_shell: Shell, user: str) -> None:
    assert lonely_shell.run("token", user, exit_code=2).stdout == ""


def test_with_a_public_key_no_token_can_be_made(tmp_path: Path, lonely_shell: Shell) -> None:
    key = generate_private_key(65537, 2048).public_key()
    (tmp_path / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    public = {"JWT_PUBLIC_KEY_FILE": str(tmp_path / "key.pem"), "JWT_ALGORITHM": "RS256", "JWT_SECRET_KEY": ""}
    ended = piped("token", "ada", environment=lonely_shell.settings | public)
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert "JWT_SECRET_KEY" in line
