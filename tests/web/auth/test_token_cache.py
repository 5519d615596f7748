"""How long a token is cached: at most a minute, and never beyond its expiry."""

from app.web.auth.token_cache import MAX_TOKENS, Bearer, TokenCache

ADA, GRACE = Bearer("ada", is_admin=False), Bearer("grace", is_admin=True)
FAR = 1e12


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_that_was_found_good_speaks_for_its_bearer() -> None:
    known = TokenCache()
    known.put("Bearer a", ADA, FAR)
    known.put("Bearer b", GRACE, FAR)
    assert known.get("Bearer a") == ADA
    assert known.get("Bearer b") == GRACE


def test_a_token_that_nobody_verified_speaks_for_nobody() -> None:
    known = TokenCache()
    known.put("Bearer a", ADA, FAR)
    for other in ("", "Bearer", "Bearer a ", "bearer a", "Bearer A", "Bearer \udcff"):
        assert known.get(other) is None


def test_a_token_is_verified_again_once_it_has_expired() -> None:
    clock = Clock()
    known = TokenCache(clock)
    known.put("Bearer a", ADA, clock.now + 10)
    clock.now += 9.9
    assert known.get("Bearer a") == ADA
    clock.now += 0.1
    assert known.get("Bearer a") is None


def test_a_token_is_verified_again_after_a_minute() -> None:
    clock = Clock()
    known = TokenCache(clock)
    known.put("Bearer a", ADA, FAR)
    clock.now += 59
    assert known.get("Bearer a") == ADA
    clock.now += 1
    assert known.get("Bearer a") is None


def test_a_clock_that_was_set_back_has_every_token_verified_again() -> None:
    clock = Clock()
    known = TokenCache(clock)
    known.put("Bearer a", ADA, FAR)
    clock.now -= 3600
    assert known.get("Bearer a") is None


def test_no_more_tokens_are_known_than_memory_is_meant_for() -> None:
    known = TokenCache()
    names = [f"Bearer {number}" for number in range(3 * MAX_TOKENS)]
    for name in names:
        known.put(name, ADA, FAR)
    assert sum(known.get(name) is not None for name in names) <= MAX_TOKENS
    assert known.get(names[-1]) == ADA
