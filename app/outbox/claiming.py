"""Claims the messages that may be sent: due ones while the circuit is closed, otherwise one probe; one per held user.

Nothing here begins or commits a transaction.
"""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import OutboxStream
from app.outbox.circuit import Circuit
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.decide import may_conclude
from app.outbox.messages import Claim
from app.outbox.queue import OutboxQueue
from app.outbox.statements import USERS_AT_ONCE

LOOKBACK_SECONDS = 10.0
"""How far before now the search for due streams starts; longer than a transaction that adds a due message may take."""

FULL_SCAN_SECONDS = 5.0
"""How often the search starts at the earliest due time instead."""


class Claiming:
    """Claims messages for the dispatcher `owner`, each leased for `lease` seconds."""

    def __init__(self, queue: OutboxQueue, breaker: CircuitBreaker, owner: str, lease: float) -> None:
        self._queue = queue
        self._breaker = breaker
        self._owner = owner
        self._lease = lease
        self._last_user = ""
        self._since = 0.0
        self._full_scan_at = 0.0

    def claim(
        self,
        session: WriteTransaction,
        circuit: Circuit,
        limit: int,
        *,
        now: float,
        holds_any: bool,
        media_id: str | None = None,
    ) -> list[Claim]:
        """Claim up to `limit` messages that circuit and holds allow, of one media item if `media_id` is given."""
        if limit <= 0:
            return []
        self._set_scan_start(session, now)
        if circuit.is_closed:
            claims = self._pick(session, limit, media_id, holds_any=holds_any)
        elif not self._breaker.take_probe(session, self._lease):
            return []
        else:
            claims = [replace(claim, is_probe=True) for claim in self._pick(session, 1, media_id, holds_any=holds_any)]
            if not claims:
                self._breaker.probe_now(session)
        return [self.with_reference(session, claim, now) for claim in claims]

    def with_reference(self, session: Session, claim: Claim, now: float) -> Claim:
        """Return the claim with a reference item if its next answer may decide about the message."""
        waited = 0.0 if claim.refused_since is None else now - claim.refused_since
        if not may_conclude(claim, waited):
            return claim
        reference = self._queue.reference(session, claim.message.media_id)
        return replace(claim, message=replace(claim.message, reference=reference))

    def due_in(self, session: Session, *, now: float, holds_any: bool, media_id: str | None = None) -> float | None:
        """Return the seconds until a message may be claimed, leaving the circuit aside; None if nothing waits.

        While any user is held, the result is 0 if a message of another user is due and otherwise at most 1.
        """
        self._set_scan_start(session, now)
        due_in = self._queue.next_due_in(session, since=self._since, media_id=media_id)
        if due_in is None or due_in > 0 or not holds_any:
            return due_in
        if media_id is None and self._users(session, 1):
            return due_in
        probe_in = self._breaker.next_user_probe_in(session)
        return min(1.0, 1.0 if probe_in is None else max(0.0, probe_in))

    def _set_scan_start(self, session: Session, now: float) -> None:
        """Set the due time at which claims start to read the index.

        PostgreSQL keeps index entries of delivered messages until a vacuum, and a long report or backup delays that.
        Claims that start at the beginning of the index would skip all of these entries each time.
        """
        if session.get_bind().dialect.name == "sqlite" or 0 <= now - self._full_scan_at < FULL_SCAN_SECONDS:
            return
        first = self._queue.next_due_in(session)
        self._since = now + min(0.0 if first is None else first, -LOOKBACK_SECONDS)
        self._full_scan_at = now

    def _pick(self, session: WriteTransaction, limit: int, media_id: str | None, *, holds_any: bool) -> list[Claim]:
        if not holds_any:
            return self._queue.claim(session, self._owner, limit, self._lease, since=self._since, media_id=media_id)
        if media_id is not None:
            return self._pick_media(session, media_id)
        claims: list[Claim] = []
        users = self._users(session, min(limit, USERS_AT_ONCE))
        if users:
            self._last_user = users[-1]
            claims += self._queue.claim(
                session, self._owner, limit // len(users), self._lease, since=self._since, users=users
            )
        free = min(limit - len(claims), USERS_AT_ONCE)
        probed = self._breaker.take_user_probes(session, self._lease, free) if free > 0 else ()
        if probed:
            claims += self._probes(
                self._queue.claim(session, self._owner, 1, self._lease, since=self._since, users=probed)
            )
        return claims

    def _pick_media(self, session: WriteTransaction, media_id: str) -> list[Claim]:
        user_id = session.scalar(select(OutboxStream.user_id).where(OutboxStream.media_id == media_id))
        if user_id is None:
            return []
        held = user_id in self._breaker.fetch(session, [user_id]).endpoint.holds
        if held and not self._breaker.take_user_probes(session, self._lease, 1, user_id=user_id):
            return []
        claims = self._queue.claim(session, self._owner, 1, self._lease, media_id=media_id)
        return self._probes(claims) if held else claims

    def _probes(self, claims: list[Claim]) -> list[Claim]:
        return [replace(claim, probes_user=True) for claim in claims]

    def _users(self, session: Session, limit: int) -> list[str]:
        """Return up to `limit` users who have a due message and are not held, starting after those of the last turn."""
        endpoint = self._breaker.endpoint
        users = self._queue.users_waiting(session, endpoint, after=self._last_user, limit=limit, since=self._since)
        if len(users) < limit and self._last_user:
            first = self._queue.users_waiting(session, endpoint, after="", limit=limit, since=self._since)
            users += [user for user in first if user not in users][: limit - len(users)]
        return users
