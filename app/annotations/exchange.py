"""The requests of one delivery or lookup: for one user, with one deadline and one token, renewed once if refused."""

from app.annotations.tokens import TokenSource
from app.http_exchange.deadline import DeadlineSession
from app.http_exchange.exchange import exchange
from app.http_exchange.responses import Response, TransportError
from app.process.version import USER_AGENT

UNAUTHORIZED = 401


class Exchange:
    """Requests for one user that all end by `ends_at` on the monotonic clock.

    `tokens_used` are its secrets. `sent` says that some request may have arrived, `outcome_unknown` that a request got
    no answer and was repeated.
    """

    def __init__(self, session: DeadlineSession, tokens: TokenSource, user_id: str, *, ends_at: float) -> None:
        self._session = session
        self._tokens = tokens
        self._user_id = user_id
        session.state.ends_at = ends_at
        self.tokens_used = [tokens.token_for(user_id)]
        self.sent = False
        self.outcome_unknown = False

    def call(self, method: str, path: str) -> str:
        """Return the method and path of a request, for people."""
        return f"{method} {self._session.endpoint.base}{path}"

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send a request, again with a fresh token if the first is refused. Raises TransportError."""
        response = self._send_once(method, path, headers or {}, body)
        if response.status == UNAUTHORIZED and len(self.tokens_used) == 1:
            self.tokens_used.append(self._tokens.token_for(self._user_id, fresh=True))
            response = self._send_once(method, path, headers or {}, body)
        return response

    def _send_once(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        common = {
            "Authorization": f"Bearer {self.tokens_used[-1]}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        try:
            return self._perform(method, path, common | headers, body)
        except TransportError as error:
            if not error.stale:
                raise
            # The repeated request has the same idempotency key, so it changes nothing if the first one arrived.
            self.outcome_unknown = True
            return self._perform(method, path, common | headers, body)

    def _perform(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        try:
            return exchange(self._session, method, path, headers, body)
        finally:
            self.sent = self.sent or self._session.state.sent
