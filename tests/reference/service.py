"""The reference annotations service on a real port of this machine, to be started, cut off and started again."""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flask import Request, Response, request

from app.demo.reference_app import create_annotations_app
from app.demo.reference_store import ReferenceStore
from tests.reference import faults
from tests.reference.faults import FaultQueue
from tests.reference.loopback_server import LoopbackServer

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.01

observers: list[Callable[[Request, Response], object]] = []
"""Called with every request of the media routes and with its answer, before that is sent."""


class ReferenceService:
    """One service in background threads; its port is its own from the making until `close`, running or not.

    While it is stopped, connections to its port are refused. Data and planted failures outlive a stop.
    Use it in a `with` block, which starts and closes it, or call `close` at the end.
    """

    def __init__(
        self,
        database: Path,
        secret: str,
        *,
        port: int = 0,
        static_token: str | None = None,
        identity_claim: str = "sub",
        audience: str | None = None,
        issuer: str | None = None,
        clock_offset: float = 0.0,
    ) -> None:
        """Take the port (0: any free one) without listening yet. Raises OSError where it is taken.

        Its clock, which dates its answers and judges tokens, goes `clock_offset` seconds wrong; set it anew at will.
        """
        self.clock_offset = clock_offset
        self._app = create_annotations_app(
            database,
            secret,
            static_token=static_token,
            identity_claim=identity_claim,
            audience=audience,
            issuer=issuer,
            clock=self.clock,
        )
        self._store: ReferenceStore = self._app.extensions["annotations"]
        self._faults = FaultQueue()
        faults.PlantedFailures(self._app, self._faults)
        self._app.after_request(_observe)
        self._server: LoopbackServer | None = None
        self._held: socket.socket | None = _hold(port)
        self.port: int = self._held.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.port}"

    def clock(self) -> float:
        """Seconds since 1970, as this service believes."""
        return time.time() + self.clock_offset

    def start(self) -> None:
        """Listen; when it returns, requests are answered. Does nothing while running."""
        if self._server is not None:
            return
        self._faults.resume()
        self._release()
        self._server = LoopbackServer(_HOST, self.port, self._app, self.clock)

    def stop(self) -> None:
        """Go away at once: no port, no open connection, requests under way cut off. Does nothing while stopped."""
        if self._server is None:
            return
        self._faults.interrupt()
        self._server.stop()
        self._server = None
        self._held = _hold(self.port)

    def close(self) -> None:
        """Stop for good: the port is given back and the database let go of."""
        self.stop()
        self._release()
        self._store.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """Return what arrived, as `GET /_log?after=` does; also while stopped."""
        return self._store.log(after)

    def records(self) -> list[dict[str, Any]]:
        """Return every media record in the order of arrival; also while stopped."""
        return self._store.records()

    def forget(self, media_ids: Sequence[str]) -> None:
        """Lose these records, as a service does that is restored from a backup; also while stopped."""
        self._store.forget(media_ids)

    def control(self, **command: Any) -> None:
        """Carry out a control command, as `POST /_control` does: `control(fail={"status": 503})`; also while stopped.

        Raises app.demo.rules.Refusal where the command is wrong.
        """
        faults.obey(self._faults, command)

    def wait_for(
        self, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 15.0
    ) -> list[dict[str, Any]]:
        """Return the log as soon as `condition(log)` holds. Raises TimeoutError with the log where it never does."""
        deadline = time.monotonic() + seconds
        while not condition(log := self.log()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s; the log: {log}")
            time.sleep(_POLL_SECONDS)
        return log

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _observe(response: Response) -> Response:
    if not request.path.startswith("/_"):
        for observe in observers:
            observe(request, response)
    return response


def _hold(port: int) -> socket.socket:
    # Bound without listening: connections are refused, and nobody else can take the port during an outage.
    held = socket.socket()
    if port != 0:  # one that was just in use: connections of it may still be dying
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((_HOST, port))
    except OSError:
        held.close()
        raise
    return held
