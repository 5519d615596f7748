"""The slot of a request, held while its view runs or until its response is sent.

A slot is released exactly once: by the view, by the server when it closes the response, or by an error. The request's
thread waits for a slow reader only while it holds a slot.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Response, g, request

from app.current import get_services
from app.web.server.answer_socket import answer_socket_of


@contextmanager
def slot() -> Iterator[None]:
    """Hold a slot for the request's user during the block, or until the response is closed if `keep` is called.

    Raises Unavailable if no slot is free.
    """
    g.release_slot = take()
    try:
        yield
    finally:
        release: Callable[[], None] | None = g.pop("release_slot", None)
        if release is not None:
            release()


def keep(response: Response) -> None:
    """Hold the request's slot until this response is closed, taking one if the request has none.

    Raises Unavailable if no slot is free.
    """
    release: Callable[[], None] | None = g.pop("release_slot", None)
    response.call_on_close(release or take())


def take(*, following: bool = False) -> Callable[[], None]:
    """Take a slot for the request's user. Return a function that releases it, also outside the request's context."""
    slots, user = get_services().slots, g.user_id
    slots.acquire(user, following=following)
    answer = answer_socket_of(request.environ)
    if answer is not None:
        answer.holds_slot = True

    def release() -> None:
        if answer is not None:
            answer.holds_slot = False
        slots.release(user, following=following)

    return release
