"""The requests of one delivery or look: one user, one deadline, one token (and one fresh one, if that is refused)."""

from app.annotations.tokens import TokenSource
from app.http_exchange.deadline import DeadlineSession
from app.http_exchange.exchange import exchange
from app.http_exchange.responses import Response, TransportError
from app.process.version import USER_AGENT

UNAUTHORIZED = 401


class Conversation:
    """Ends at `ends_at` on the monotonic clock, whatever is asked in it.

    `tokens_used` are its secrets. `sent` says that some request may have arrived; `outcome_unknown` that one was sent
    of which nothing was heard, though another followed it.
    """

    def __init__(self, session: DeadlineSession, tokens: TokenSource, user_id: str, *, ends_at: float) -> None:
        self._session = session
        self._tokens = tokens
        self._user_id = user_id
        session.exchange.ends_at = ends_at
        self.tokens_used = [tokens.token_for(user_id)]
        self.sent = False
        self.outcome_unknown = False

    def call(self, method: str, path: str) -> str:
        """How a request is named to people."""
        return f"{method} {self._session.endpoint.base}{path}"

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Response:
        """Send it, with a fresh token should the first be refused; raises TransportError."""
        reply = self._ask(method, path, headers or {}, body)
        if reply.status == UNAUTHORIZED and len(self.tokens_used) == 1:
            self.tokens_used.append(self._tokens.token_for(self._user_id, fresh=True))
            reply = self._ask(method, path, headers or {}, body)
        return reply

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        common = {
            "Authorization": f"Bearer {self.tokens_used[-1]}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        try:
            return self._send(method, path, common | headers, body)
        except TransportError as error:
            if not error.stale:
                raise
            # The same key again: a second one of what did arrive after all changes nothing.
            self.outcome_unknown = True
            return self._send(method, path, common | headers, body)

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        try:
            return exchange(self._session, method, path, headers, body)
        finally:
            self.sent = self.sent or self._session.exchange.sent
