"""What `bin/test` leaves to `python -m tests.campaigns long`: what takes long, beside a shorter form that stays.

A test that is long as a whole has the mark; of one with parameters, those values have it that are `later`.
"""

from collections.abc import Iterable

import pytest


def later(first: Iterable[object], *values: object) -> list[object]:
    """Parameters: the first ones at every run of `bin/test`, the values behind them in the campaign alone."""
    return [*first, *(pytest.param(value, marks=pytest.mark.long) for value in values)]


sqlite_first = pytest.mark.parametrize("database_url", later(["sqlite"], "postgres"), indirect=True)
postgres_first = pytest.mark.parametrize("database_url", later(["postgres"], "sqlite"), indirect=True)
