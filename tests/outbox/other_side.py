"""An annotations service that fails, is busy or is the wrong one, for the campaign.

By default each idempotency key is applied once, and a key whose request is still running is answered with 409.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived."""

    number: int
    method: str
    media_id: str
    user_id: str
    key: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that replaces the service's own."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str | None = JSON
    raw: bytes | None = None
    """Instead of all that: these bytes, and the end of the connection."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to the first request with a key.

    `answer` replaces the service's own; None closes the connection without one.
    """

    applied: bool
    answer: Answered | None = None


Rule = Callable[[Arrival], Answered | None]


class OtherSide:
    """An annotations service on a free port; a context manager.

    `rule` may replace the answer to a request and `record_rule` that to a GET of a record. `work` returns how many
    seconds the first request with a key takes, and `fate` what happens to it then, None for nothing.
    """

    def __init__(
        self,
        rule: Rule = lambda _arrival: None,
        *,
        work: Callable[[Arrival], float] = lambda _arrival: 0.0,
        fate: Callable[[Arrival], Fate | None] = lambda _arrival: None,
        record_rule: Rule = lambda _arrival: None,
    ) -> None:
        self.rule = rule
        self.record_rule = record_rule
        self.records: dict[str, dict[str, Any]] = {}
        self.arrivals: list[tuple[float, Arrival]] = []
        self.statuses: dict[str, list[int]] = {}
        """Every status that was applied to a record, in order."""
        self._work, self._fate = work, fate
        self._applied: set[str] = set()
        self._at_work: set[str] = set()
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.other_side = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def status_of(self, media_id: str) -> int | None:
        """The status of its record; None without a record."""
        record = self.records.get(media_id)
        return None if record is None else int(record["mediaStatus"])

    def arrived_within(self, seconds: float) -> int:
        """Count the requests within `seconds` of the first one."""
        first = self.arrivals[0][0]
        return sum(at - first <= seconds for at, _arrival in self.arrivals)

    def answer(self, arrival: Arrival) -> Answered | None:
        """Return the answer to a request; None closes the connection without one."""
        with self._lock:
            self.arrivals.append((time.monotonic(), arrival))
        if arrival.method == "GET":
            return self.record_rule(arrival) or self._record(arrival)
        planted = self.rule(arrival)
        if planted is not None:
            return planted
        key = arrival.key or ""
        with self._lock:
            if key in self._at_work:
                return Answered(409, b'{"title": "this key is being worked on"}')
            first = key not in self._seen
            self._seen.add(key)
            self._at_work.add(key)
        try:
            return self._take(arrival, key, first=first)
        finally:
            with self._lock:
                self._at_work.discard(key)

    def _take(self, arrival: Arrival, key: str, *, first: bool) -> Answered | None:
        fate = self._fate(arrival) if first else None
        if first:
            time.sleep(self._work(arrival))
        if fate and not fate.applied:
            return fate.answer
        with self._lock:
            answered = Answered(200) if key in self._applied else self._apply(arrival, key)
        return fate.answer if fate else answered

    def _apply(self, arrival: Arrival, key: str) -> Answered:
        if arrival.method == "POST":
            if arrival.media_id in self.records:
                return Answered(409, b'{"title": "exists"}')
            self.records[arrival.media_id] = arrival.body
        elif arrival.media_id not in self.records:
            return Answered(404, b'{"title": "unknown"}')
        else:
            self.records[arrival.media_id] |= arrival.body
        self._applied.add(key)
        self.statuses.setdefault(arrival.media_id, []).append(int(arrival.body["mediaStatus"]))
        return Answered(201 if arrival.method == "POST" else 200, json.dumps(self.records[arrival.media_id]).encode())

    def _record(self, arrival: Arrival) -> Answered:
        with self._lock:
            record = self.records.get(arrival.media_id)
        return Answered(404, b"{}") if record is None else Answered(200, json.dumps(record).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    other_side: OtherSide
    requests = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else {}
        parts = self.path.split("/")
        claims = jwt.decode(self.headers["Authorization"].partition(" ")[2], options={"verify_signature": False})
        self.server.requests += 1
        arrival = Arrival(
            self.server.requests,
            self.command,
            body["id"] if self.command == "POST" else parts[3],
            claims["sub"],
            self.headers.get("Idempotency-Key"),
            body,
        )
        answered = self.server.other_side.answer(arrival)
        if answered is None:
            self.close_connection = True
            return
        self._send(answered)

    def _send(self, answered: Answered) -> None:
        try:
            if answered.raw is not None:
                self.close_connection = True
                self.wfile.write(answered.raw)
                return
            self.send_response(answered.status)
            if answered.media_type and answered.status != 204:
                self.send_header("Content-Type", answered.media_type)
            for name, value in answered.headers.items():
                self.send_header(name, value)
            if answered.status != 204:
                self.send_header("Content-Length", str(len(answered.body)))
            self.end_headers()
            self.wfile.write(answered.body)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: the campaign prints its own table."""
