"""Which messages may be sent next: all that is due while the circuit is closed, else one probe; of held users, a probe.

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
"""How far back streams are looked for: for longer than a transaction may take that adds messages, due now."""

FULL_SCAN_SECONDS = 5.0
"""How often all are looked for, whenever they were due."""


class Claiming:
    """Claims for one dispatcher, `owner`, each leased for `lease` seconds."""

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
        """Up to `limit` claims that may be sent (of one media item only, if given), `circuit` and holds permitting."""
        if limit <= 0:
            return []
        self._bound(session, now)
        if circuit.is_closed:
            claims = self._pick(session, limit, media_id, holds_any=holds_any)
        elif not self._breaker.take_probe(session, self._lease):
            return []
        else:
            claims = [replace(one, is_probe=True) for one in self._pick(session, 1, media_id, holds_any=holds_any)]
            if not claims:
                self._breaker.probe_now(session)
        return [self.with_reference(session, one, now) for one in claims]

    def with_reference(self, session: Session, claim: Claim, now: float) -> Claim:
        """The claim with what it takes to come to a conclusion, where its next answer may be the last one."""
        waited = 0.0 if claim.refused_since is None else now - claim.refused_since
        if not may_conclude(claim, waited):
            return claim
        reference = self._queue.reference(session, claim.message.media_id)
        return replace(claim, message=replace(claim.message, reference=reference))

    def due_in(self, session: Session, *, now: float, holds_any: bool, media_id: str | None = None) -> float | None:
        """Seconds until the first claim may be taken, circuit permitting; None where nothing waits.

        Where a user is held that is not asked of every user: 0 if somebody's is due, else a second at most.
        """
        self._bound(session, now)
        due_in = self._queue.next_due_in(session, since=self._since, media_id=media_id)
        if due_in is None or due_in > 0 or not holds_any:
            return due_in
        if media_id is None and self._users(session, 1):
            return due_in
        probe_in = self._breaker.next_user_probe_in(session)
        return min(1.0, 1.0 if probe_in is None else max(0.0, probe_in))

    def _bound(self, session: Session, now: float) -> None:
        """Have streams be looked for from the first one that waits, or from a little while ago.

        What was delivered leaves its place in the index to the vacuum of PostgreSQL, which removes nothing while a long
        report or backup holds its snapshot: from the start, each claim would pass over all of that.
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
        return [replace(one, probes_user=True) for one in claims]

    def _users(self, session: Session, limit: int) -> list[str]:
        """Whose turn it is among users with something due who are not held, beginning behind those of the last turn."""
        endpoint = self._breaker.endpoint
        users = self._queue.users_waiting(session, endpoint, after=self._last_user, limit=limit, since=self._since)
        if len(users) < limit and self._last_user:
            first = self._queue.users_waiting(session, endpoint, after="", limit=limit, since=self._since)
            users += [one for one in first if one not in users][: limit - len(users)]
        return users
