"""The slot of a request: held while its view runs, or until its answer has been written.

A slot is given back exactly once, whoever ends first: the view, the server that closes the answer, or an error. Only
while it is held does the request's thread wait for whoever reads its answer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Response, g, request

from app.current import get_services
from app.web.server.answer_socket import answer_socket_of


@contextmanager
def slot() -> Iterator[None]:
    """Hold a slot for the request's user while the block runs, and until the answer is closed if `keep` is called.

    Raises Unavailable where there is none.
    """
    g.give_back_slot = take()
    try:
        yield
    finally:
        give_back: Callable[[], None] | None = g.pop("give_back_slot", None)
        if give_back is not None:
            give_back()


def keep(response: Response) -> None:
    """Hold the request's slot until this answer is closed; one is taken where the request holds none.

    Raises Unavailable where there is none.
    """
    give_back: Callable[[], None] | None = g.pop("give_back_slot", None)
    response.call_on_close(give_back or take())


def take(*, following: bool = False) -> Callable[[], None]:
    """Take a slot for the request's user. The function returned gives it back, and needs no request to be called in."""
    slots, user = get_services().slots, g.user_id
    slots.acquire(user, following=following)
    answer = answer_socket_of(request.environ)
    if answer is not None:
        answer.holds_slot = True

    def give_back() -> None:
        if answer is not None:
            answer.holds_slot = False
        slots.release(user, following=following)

    return give_back
