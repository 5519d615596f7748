"""Tokens for the annotations service: their claims and lifetimes, and that no secret is shown."""

from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.types import Options

from app.annotations.tokens import MintedTokens, StaticToken, TokenSource
from app.errors import SettingsError

SECRET = "a secret that the whole suite shares, long enough"
NOW = 1_763_800_000.75


def claims_of(token: str, **options: Any) -> dict[str, Any]:
    """Return the claims after checking the signature but not the times."""
    unchecked: Options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options=unchecked, **options)
    return claims


def accepted_at(token: str, now: float) -> bool:
    """Whether a strict receiver with that clock accepts the token: not issued in the future, not expired."""
    claims = claims_of(token)
    return bool(claims["iat"] <= now < claims["exp"])


def test_a_static_token_is_the_same_for_everyone_and_every_time() -> None:
    source: TokenSource = StaticToken("fixed.token")
    assert {source.token_for("ada"), source.token_for("bob"), source.token_for("ada", fresh=True)} == {"fixed.token"}


@pytest.mark.parametrize("bad", ["", " ", "two words", "line\r\nX-Evil: 1", "tökèn", "nul\x00", "\x7f"])
def test_a_token_that_cannot_stand_in_a_header_stops_the_start_unrepeated(bad: str) -> None:
    with pytest.raises(SettingsError) as refused:
        StaticToken(bad)
    assert str(refused.value) == "ANNOTATIONS_TOKEN must be printable ASCII without spaces."


def test_a_minted_token_names_the_user_and_who_acts_for_them() -> None:
    claims = claims_of(MintedTokens(SECRET, clock=lambda: NOW).token_for("ada"))
    assert claims == {"sub": "ada", "act": {"sub": "detections"}, "iat": claims["iat"], "exp": claims["exp"]}


def test_the_identity_stands_in_the_claim_that_the_suite_uses() -> None:
    claims = claims_of(MintedTokens(SECRET, identity_claim="user_id").token_for("ada"))
    assert claims["user_id"] == "ada"
    assert "sub" not in claims


def test_audience_and_issuer_are_those_of_the_settings() -> None:
    token = MintedTokens(SECRET, audience="suite", issuer="detections").token_for("ada")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="suite", issuer="detections")
    assert claims["aud"] == "suite"
    assert claims["iss"] == "detections"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_algorithm_is_that_of_the_settings(algorithm: str) -> None:
    secret = "k" * 64
    token = MintedTokens(secret, algorithm).token_for("ada")
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT"}
    assert jwt.decode(token, secret, algorithms=[algorithm])["sub"] == "ada"


def test_a_minted_token_is_accepted_now_by_a_strict_library() -> None:
    assert jwt.decode(MintedTokens(SECRET).token_for("ada"), SECRET, algorithms=["HS256"])["sub"] == "ada"


@given(st.floats(1e9, 4e9), st.integers(1, 300))
def test_a_minted_token_is_good_now_and_never_longer_than_its_lifetime(now: float, lifetime: int) -> None:
    token = MintedTokens(SECRET, lifetime=lifetime, clock=lambda: now).token_for("ada")
    claims = claims_of(token)
    assert claims["exp"] - claims["iat"] == lifetime <= 300
    assert claims["iat"] <= now
    assert claims["exp"] >= int(now) + lifetime - lifetime // 5


@pytest.mark.parametrize("behind", [-200, -30, 0, 30, 59])
def test_a_receiver_whose_clock_is_a_little_off_takes_it(behind: float) -> None:
    assert accepted_at(MintedTokens(SECRET, clock=lambda: NOW).token_for("ada"), NOW - behind)


@pytest.mark.parametrize("later", [300, 86400])
def test_a_stored_token_is_of_no_use_later(later: float) -> None:
    assert not accepted_at(MintedTokens(SECRET, clock=lambda: NOW).token_for("ada"), NOW + later)


def test_each_token_is_made_at_its_own_time() -> None:
    times = iter([NOW, NOW + 1000])
    source = MintedTokens(SECRET, clock=lambda: next(times))
    first, second = (claims_of(source.token_for("ada"))["exp"] for _ in range(2))
    assert second - first == 1000


@pytest.mark.parametrize("lifetime", [0, -1, 301])
def test_a_lifetime_beyond_the_contract_is_refused(lifetime: int) -> None:
    with pytest.raises(ValueError, match="1 to 300 seconds"):
        MintedTokens(SECRET, lifetime=lifetime)


@pytest.mark.parametrize("claim", ["act", "aud", "exp", "iat", "iss", "jti", "nbf"])
def test_an_identity_cannot_take_the_place_of_another_claim(claim: str) -> None:
    with pytest.raises(SettingsError, match="JWT_IDENTITY_CLAIM"):
        MintedTokens(SECRET, identity_claim=claim)


@given(st.text())
def test_any_identity_is_passed_on_unchanged(user_id: str) -> None:
    assert claims_of(MintedTokens(SECRET).token_for(user_id))["sub"] == user_id


def test_neither_secret_nor_token_is_in_a_repr() -> None:
    static, minted = StaticToken("fixed.token"), MintedTokens(SECRET)
    assert "fixed.token" not in repr(static)
    assert SECRET not in repr(minted)
