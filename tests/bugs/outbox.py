"""Bugs of the outbox: leases, numbers, claims, conclusions."""

from dataclasses import replace
from typing import Any

from tests.bugs.bug import Bug, change_statement, imported, skip, without_condition, wrap

CLAIMS, ENQUEUE, OUTCOMES = (
    "tests/outbox/test_claims.py",
    "tests/outbox/test_enqueue.py",
    "tests/outbox/test_transitions.py",
)
CIRCUIT, FLUSHES, PROCESSES = (
    "tests/outbox/test_circuit_breaker.py",
    "tests/outbox/test_flush.py",
    "tests/outbox/test_processes.py",
)
HOLDS, DECISIONS = "tests/outbox/test_holds.py", "tests/outbox/test_decide.py"
TEN_YEARS = 10 * 365 * 86400.0


def deliver_under_any_epoch(module: Any) -> None:
    owner_is_there = module.STREAM_LEASE.owner.is_not(None)
    change_statement(
        module.TransitionStatements, "deliver", lambda built: without_condition(built, "epoch").where(owner_is_there)
    )


def deliver_any_number(module: Any) -> None:
    change_statement(module.TransitionStatements, "deliver", lambda built: without_condition(built, "acked_seq"))


def reschedule_under_any_epoch(module: Any) -> None:
    owner_is_there = module.STREAM_LEASE.owner.is_not(None)
    change_statement(
        module.TransitionStatements, "reschedule", lambda built: without_condition(built, "epoch").where(owner_is_there)
    )


def reschedule_what_was_released(module: Any) -> None:
    lease = module.STREAM_LEASE

    class OfLastClaim:
        def __getattr__(self, name: str) -> Any:
            return getattr(lease, name)

        def fence(self, epoch: Any) -> Any:
            return lease.epoch == epoch

    module.STREAM_LEASE = OfLastClaim()


def leave_a_gap(module: Any) -> None:
    def enqueue(original: Any, queue: Any, transaction: Any, media_id: str, *given: Any, **named: Any) -> Any:
        stream = imported("app.outbox.statements").STREAM
        number = original(queue, transaction, media_id, *given, **named)
        transaction.execute(stream.update().where(stream.c.media_id == media_id).values(last_seq=stream.c.last_seq + 1))
        return number

    wrap(module.OutboxQueue, "enqueue", enqueue)


def shorten_backoff(module: Any) -> None:
    def enqueue(original: Any, queue: Any, transaction: Any, media_id: str, *given: Any, **named: Any) -> Any:
        stream = imported("app.outbox.statements").STREAM
        number = original(queue, transaction, media_id, *given, **named)
        transaction.execute(stream.update().where(stream.c.media_id == media_id).values(due_at=queue.now))
        return number

    wrap(module.OutboxQueue, "enqueue", enqueue)


def claim_what_is_leased(module: Any) -> None:
    is_waiting = module.STREAM.c.due_at.is_not(None)
    wrap(
        module.Statements,
        "_due",
        lambda original, self, chosen: without_condition(original(self, chosen), "due_at <=").where(is_waiting),
    )
    assert str(module.Statements("sqlite", module.func.now()).claim_due_of_media)


def forget_who_died(module: Any) -> None:
    def claim(original: Any, queue: Any, session: Any, *given: Any, **named: Any) -> Any:
        stream = imported("app.outbox.statements").STREAM
        has_run_out = (stream.c.due_at <= queue.now, stream.c.lease_owner.is_not(None))
        session.execute(stream.update().where(*has_run_out).values(lease_owner=None))
        return original(queue, session, *given, **named)

    wrap(module.OutboxQueue, "claim", claim)


def claim_past_an_open_circuit(module: Any) -> None:
    def claim(original: Any, claiming: Any, session: Any, _circuit: Any, *given: Any, **named: Any) -> Any:
        return original(claiming, session, module.Circuit(), *given, **named)

    wrap(module.Claiming, "claim", claim)


def claim_of_held_users(module: Any) -> None:
    def claim(original: Any, *given: Any, **named: Any) -> Any:
        return original(*given, **named | {"holds_any": False})

    wrap(module.Claiming, "claim", claim)


def park_at_once(module: Any) -> None:
    def counted_before(one: Any) -> Any:
        refused = one.attempt and one.attempt.classification.verdict is module.Verdict.REFUSED
        counted = max(1, one.claim.counted_attempts)
        return replace(one, claim=replace(one.claim, counted_attempts=counted)) if refused else one

    def decide(original: Any, returned: Any, situation: Any, policy: Any) -> Any:
        return original([counted_before(one) for one in returned], situation, policy)

    wrap(module, "decide", decide)


def take_absence_for_nothing(module: Any) -> None:
    lookup, presence = module.RecordLookup, module.Presence
    found = lookup.presence.fget
    lookup.presence = property(lambda self: presence.UNKNOWN if found(self) is presence.ABSENT else found(self))


def decide_by_late_answers(module: Any) -> None:
    def still_leased(_original: Any, _queue: Any, _session: Any, claims: Any) -> set[str]:
        return {claim.message.media_id for claim in claims}

    wrap(module.OutboxQueue, "still_leased", still_leased)


def count_trouble(module: Any) -> None:
    def counted(one: Any) -> Any:
        trouble = one.attempt and one.attempt.classification.verdict is module.Verdict.RETRY
        if not trouble or one.action is not module.Action.RETRY:
            return one
        claim = one.claim
        return replace(one, failures=claim.failures, counted_attempts=claim.counted_attempts + 1, refused=True)

    def decide(original: Any, *given: Any) -> Any:
        decision = original(*given)
        return replace(decision, transitions=[counted(one) for one in decision.transitions])

    wrap(module, "decide", decide)


def send_at_any_time(module: Any) -> None:
    def init(original: Any, *given: Any, **named: Any) -> None:
        original(*given, **named | {"deadline": float("-inf")})

    wrap(module.DeliveryWorkers, "__init__", init)


def break_leases(module: Any) -> None:
    stream = module.OutboxStream

    def bring_forward(original: Any, flush: Any, session: Any) -> Any:
        leased = module.update(stream).where(stream.due_at > flush._now(session), *flush._scope())
        session.execute(leased.values(due_at=flush._now(session)).execution_options(synchronize_session=False))
        return original(flush, session)

    wrap(module.Flush, "_bring_forward", bring_forward)


def keep_leases_of_a_clock_set_back(module: Any) -> None:
    backoffs, _leases = module.OUTBOX_BOUNDS
    module.OUTBOX_BOUNDS = (backoffs, module.STREAM_LEASE.bound(TEN_YEARS))


def append_by_an_old_look(module: Any) -> None:
    def resend_item(original: Any, session: Any, queue: Any, expected: Any) -> Any:
        now = module.expected_for(session, [expected.media_id])
        return original(session, queue, now[0] if now else expected)

    wrap(module, "resend_item", resend_item)


OUTBOX_BUGS = (
    Bug(
        "a delivery that does not look at the lease's epoch",
        "app.outbox.transition_statements",
        deliver_under_any_epoch,
        [CLAIMS],
    ),
    Bug(
        "a delivery that does not look at acked_seq",
        "app.outbox.transition_statements",
        deliver_any_number,
        [CLAIMS, OUTCOMES],
    ),
    Bug(
        "a transition that does not look at the lease's epoch",
        "app.outbox.transition_statements",
        reschedule_under_any_epoch,
        [CLAIMS],
    ),
    Bug(
        "a transition applied though the lease was let go",
        "app.outbox.transition_statements",
        reschedule_what_was_released,
        [OUTCOMES],
    ),
    Bug("a gap in the numbers", "app.outbox.queue", leave_a_gap, [ENQUEUE]),
    Bug("a backoff shortened by the next message", "app.outbox.queue", shorten_backoff, [ENQUEUE]),
    Bug("a claim that takes what is leased", "app.outbox.statements", claim_what_is_leased, [CLAIMS]),
    Bug("a lease that ran out forgotten", "app.outbox.queue", forget_who_died, [CLAIMS]),
    Bug("an open circuit ignored", "app.outbox.claiming", claim_past_an_open_circuit, [CIRCUIT]),
    Bug("a held user's messages claimed", "app.outbox.claiming", claim_of_held_users, [HOLDS]),
    Bug("a refusal that parks at once", "app.outbox.decide", park_at_once, [DECISIONS]),
    Bug(
        "a conflict that nothing confirms counted as delivered",
        "app.annotations.conflict",
        take_absence_for_nothing,
        ["tests/annotations/test_classify.py"],
    ),
    Bug("a late answer that decides the circuit", "app.outbox.queue", decide_by_late_answers, [CLAIMS, CIRCUIT]),
    Bug("trouble that counts as a refusal", "app.outbox.decide", count_trouble, [OUTCOMES]),
    Bug("a send with too little lease left", "app.outbox.delivery_workers", send_at_any_time, [CLAIMS]),
    Bug("a flush that breaks leases", "app.outbox.flush", break_leases, [FLUSHES]),
    Bug(
        "results dropped when the database fails",
        "app.outbox.delivery_workers",
        lambda module: skip(module.DeliveryWorkers, "put_back"),
        [PROCESSES],
    ),
    Bug(
        "a create without its message",
        "app.outbox.queue",
        lambda module: skip(module.OutboxQueue, "begin_streams"),
        [ENQUEUE],
    ),
    Bug(
        "leases left where a clock that was set back has put them",
        "app.outbox.schedule",
        keep_leases_of_a_clock_set_back,
        ["tests/outbox/test_clock_steps.py"],
    ),
    Bug(
        "resent although it changed since its record was fetched",
        "app.outbox.resend",
        append_by_an_old_look,
        ["tests/outbox/test_resend.py"],
    ),
    Bug(
        "waiting messages left before those that say it all again",
        "app.outbox.resend",
        lambda module: skip(module, "_supersede_waiting"),
        ["tests/outbox/test_resend.py"],
    ),
)
