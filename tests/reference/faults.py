"""Failures planted in the reference annotations service, one rule after the other, kept in memory only.

`POST /_control` plants them: `{"fail": {…}}`, `{"clear": true}` or both.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, jsonify, request

from app.demo.reference_app import arrival, is_logged, problem
from app.demo.rules import Demand, Refusal
from tests.reference.loopback_server import DROP_CONNECTION


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request that matches: first `delay` (seconds), then the rest.

    With `status` it is answered so (with `headers` and `body`), with `close` not at all: before the request is acted
    on, or after it where `apply` is true. With neither, it is acted on as always, and `headers` and `body` replace
    those of the answer where given.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0
    close: bool = False
    apply: bool = False
    method: str | None = None
    media_id: str | None = None

    @property
    def ends_the_request(self) -> bool:
        """Whether the request is not acted on."""
        return (self.close or self.status is not None) and not self.apply

    def matches(self, method: str, media_id: str | None) -> bool:
        return self.method in {None, method} and self.media_id in {None, media_id}


class KeysAtWork:
    """The Idempotency-Keys of requests that are being worked on: another one with such a key is a conflict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    def begin(self, key: str) -> bool:
        """False where a request with that key is under way already."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys.add(key)
            return True

    def end(self, key: str) -> None:
        with self._lock:
            self._keys.discard(key)


class FaultQueue:
    """The planted failures that are still to happen, in the order in which they were planted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int]] = []
        self._interrupted = threading.Event()

    def plant(self, fault: Fault, times: int) -> None:
        """Let `fault` happen to the next `times` requests that match it and no rule before it."""
        with self._lock:
            self._waiting.append((fault, times))

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> int:
        """How many failures are still to happen."""
        with self._lock:
            return sum(times for _, times in self._waiting)

    def take(self, method: str, media_id: str | None) -> Fault | None:
        """Return the failure that this request meets, used up once, or None."""
        with self._lock:
            for position, (fault, times) in enumerate(self._waiting):
                if fault.matches(method, media_id):
                    self._waiting[position : position + 1] = [(fault, times - 1)] if times > 1 else []
                    return fault
        return None

    def pause(self, seconds: float) -> bool:
        """Wait that long; False where the service was stopped meanwhile."""
        return not self._interrupted.wait(seconds)

    def interrupt(self) -> None:
        """End every pause, now and until `resume`."""
        self._interrupted.set()

    def resume(self) -> None:
        self._interrupted.clear()


class PlantedFailures:
    """Has what is planted happen to an application's requests, once they are logged."""

    def __init__(self, app: Flask, queue: FaultQueue) -> None:
        self._queue = queue
        self._at_work = KeysAtWork()
        app.post("/_control")(self._control)
        app.before_request(self._arrive)
        app.after_request(self._leave)

    def _control(self) -> Response:
        obey(self._queue, request.get_json(force=True))
        return jsonify({"waiting": self._queue.waiting()})

    def _arrive(self) -> Response | None:
        g.fault = g.key = None
        if not is_logged():
            return None
        arrived = arrival()
        if arrived.idempotency_key:
            if not self._at_work.begin(arrived.idempotency_key):
                return problem(409, "key-at-work", "A request with this Idempotency-Key is still being worked on.")
            g.key = arrived.idempotency_key
        g.fault = fault = self._queue.take(arrived.method, arrived.media_id)
        if fault is None:
            return None
        g.interrupted = not self._queue.pause(fault.delay)
        if g.interrupted or fault.ends_the_request:
            return Response(status=HTTPStatus.SERVICE_UNAVAILABLE)  # replaced in _leave
        return None

    def _leave(self, response: Response) -> Response:
        fault: Fault | None = g.fault
        if g.key:
            self._at_work.end(g.key)
        if fault is None:
            return response
        if fault.close or g.interrupted:
            g.unanswered = True
            request.environ[DROP_CONNECTION]()
            return response
        if fault.status is not None:
            response = problem(fault.status, "planted-failure", "This failure was asked for.")
        if fault.body is not None:
            response.set_data(fault.body)
        response.headers.update(fault.headers)
        return response


def obey(queue: FaultQueue, command: Any) -> None:
    """Carry out a control command, `{"fail": {…}}` or `{"clear": true}` or both (cleared first).

    Raises Refusal (422) that names what is wrong; then nothing has changed.
    """
    if not isinstance(command, dict) or not command or command.keys() - {"fail", "clear"}:
        raise Refusal(422, "invalid-command", 'The command must be {"fail": {…}}, {"clear": true} or both.')
    if command.get("clear", True) is not True:
        raise Refusal(422, "invalid-command", "'clear' must be true.", "clear")
    planted = _parse(command["fail"]) if "fail" in command else None
    if "clear" in command:
        queue.clear()
    if planted is not None:
        queue.plant(*planted)


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= 3600


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_FAULT_FIELDS: Mapping[str, Demand] = {
    "status": Demand("a code from 200 to 599", lambda value: type(value) is int and 200 <= value <= 599),
    "headers": Demand("an object of texts", _is_text_map),
    "body": Demand("a text", lambda value: isinstance(value, str)),
    "delay": Demand("seconds from 0 to 3600", _is_number),
    "close": Demand("true or false", lambda value: isinstance(value, bool)),
    "apply": Demand("true or false", lambda value: isinstance(value, bool)),
    "times": Demand("a whole number from 1 on", lambda value: type(value) is int and value >= 1),
    "match": Demand(
        "an object with 'method' or 'mediaId'",
        lambda value: _is_text_map(value) and not value.keys() - {"method", "mediaId"},
    ),
}


def _parse(rule: Any) -> tuple[Fault, int]:
    if not isinstance(rule, dict) or not rule.keys() & {"status", "headers", "body", "delay", "close"}:
        raise Refusal(422, "invalid-command", "'fail' must be an object that says what fails.", "fail")
    for name, value in rule.items():
        if name not in _FAULT_FIELDS:
            raise Refusal(422, "invalid-command", f"Unknown field {name!r}.", name)
        if not _FAULT_FIELDS[name].holds(value):
            raise Refusal(422, "invalid-command", f"Field {name!r} must be {_FAULT_FIELDS[name].words}.", name)
    settings = dict(rule)
    times = settings.pop("times", 1)
    match = settings.pop("match", {})
    return Fault(**settings, method=match.get("method"), media_id=match.get("mediaId")), times
