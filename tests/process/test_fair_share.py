"""Fair shares of a queue."""

import pytest

from app.process.fair_share import has_capacity


@pytest.mark.parametrize(
    ("held", "user", "expected"),
    [
        ({"ada": 9}, "ada", True),
        ({"ada": 10}, "ada", False),
        ({"ada": 10}, "bob", True),  # nobody who holds nothing is refused
        ({"ada": 10, "bob": 4}, "bob", True),
        ({"ada": 10, "bob": 5}, "bob", False),  # an equal share of two
        ({"ada": 10, "bob": 5}, "cleo", True),
        ({"ada": 10, "bob": 5, "cleo": 3}, "cleo", False),
        ({f"user {number}": 1 for number in range(50)}, "ada", True),
        ({f"user {number}": 1 for number in range(50)}, "user 1", False),
    ],
)
def test_a_full_queue_takes_from_those_who_hold_less_than_an_equal_share(
    held: dict[str, int], user: str, expected: bool
) -> None:
    assert has_capacity(10, held, user) is expected


def test_a_queue_outgrows_its_capacity_by_no_more_than_the_harmonic_number() -> None:
    held: dict[str, int] = {}
    for number in range(20):
        while has_capacity(100, held, f"user {number}"):
            held[f"user {number}"] = held.get(f"user {number}", 0) + 1
    assert sum(held.values()) <= 100 * sum(1 / users for users in range(1, 21)) + 20
