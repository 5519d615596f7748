"""What a planted bug is: a function that is given a module right after its import, and changes how that behaves."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import func


@dataclass(frozen=True, slots=True)
class Bug:
    """`plant` changes something of `module`, which a program imports by that name; `tests` should notice."""

    name: str
    module: str
    plant: Callable[[Any], None]
    tests: Sequence[str]


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have `around(original, …)` called in place of a function or method. Raises AttributeError where there is none."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    setattr(owner, name, wrapped)


def imported(name: str) -> Any:
    """A module that the planted one imports itself."""
    return sys.modules[name]


def skip(owner: Any, name: str, result: Any = None) -> None:
    """Have a function or method do nothing but return `result`. Raises AttributeError where there is none."""
    wrap(owner, name, lambda _original, *_arguments, **_options: result)


def change_statement(owner: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Have `change` make another statement of that which `owner`, a class, builds under that name. Raises what `change`
    does."""
    build = getattr(owner, name).func
    change(build(owner("sqlite", func.now())))
    changed = cached_property(lambda self: change(build(self)))
    changed.__set_name__(owner, name)
    setattr(owner, name, changed)


def without_condition(statement: Any, column: str) -> Any:
    """The statement without the one condition of its WHERE that names the column. Raises ValueError where not one
    does."""
    conditions = [one for one in statement._where_criteria if column in str(one)]
    if len(conditions) != 1:
        raise ValueError(f"{len(conditions)} conditions of the statement name {column}")
    changed = statement._clone()
    changed._where_criteria = tuple(one for one in statement._where_criteria if one is not conditions[0])
    return changed
