"""Decisions: the transition and the endpoint's state after every verdict, in every state of circuit and holds.

tests/annotations/test_classify.py tests that each answer gets its verdict.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.outbox.circuit import Circuit, CircuitState, EndpointState, Hold, InFlight, Sample, Signal, Window
from app.outbox.decide import Action, Decision, Transition, decide
from app.outbox.decide_endpoint import DecisionContext
from app.outbox.messages import Attempt, Claim, Classification, Message, MessageKind, Outcome, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy, fixed

NOW = 1_800_000_000.0
LEASE, DAY, TEN_MINUTES = 30.0, 86_400.0, 600.0
MEDIA_WAIT, CIRCUIT_WAIT, UNFIT_WAIT, HOLD_WAIT, LIMITED_WAIT = 10.0, 2.0, 1.0, 3.0, 5.0
POLICY = RetryPolicy(
    media_wait=fixed(MEDIA_WAIT),
    circuit_wait=fixed(CIRCUIT_WAIT),
    unfit_wait=fixed(UNFIT_WAIT),
    hold_wait=fixed(HOLD_WAIT),
    limited_wait=fixed(LIMITED_WAIT),
)
OPEN = Circuit(CircuitState.OPEN, 1, NOW + 4.0, "503", NOW - 1.0)
HALF_OPEN = replace(OPEN, state=CircuitState.HALF_OPEN, retry_at=NOW + LEASE)
REFUSING = replace(HALF_OPEN, refusing_since=NOW - 20.0)

OK = Classification(Verdict.DELIVERED, "200", 200)
SERVER_ERROR = Classification(Verdict.RETRY, "500", 500)
NO_ANSWER = Classification(Verdict.RETRY, "timed out", outcome_unknown=True)
UNFIT = Classification(Verdict.UNFIT, "503", 503)
HELD = Classification(Verdict.HOLD, "403", 403)
REFUSED = Classification(Verdict.REFUSED, "422", 422)
PARKED = Classification(Verdict.PARK, "409, a video there", 409)
UNSEEN = Classification(Verdict.DELIVERED, "409, unseen", 409, Outcome.DUPLICATE)
LIMITED = Classification(Verdict.RETRY_LIMITED, "409", 409, conclusion=UNSEEN)
NOT_THERE = Classification(Verdict.RETRY_LIMITED, "404", 404, conclusion=replace(REFUSED, detail="404 for long"))


def claim(number: int = 1, user: str = "ada", **changes: object) -> Claim:
    media_id = f"{number:016x}"
    return replace(Claim(Message(media_id, 1, MessageKind.CREATE, {}, f"key-{number}", user, None), 1), **changes)  # type: ignore[arg-type]


def back(one: Claim, found: Classification | None, sends: int = 1) -> SendResult:
    return SendResult(one, Attempt(found, 1.0, 0.1, sends) if found else None)


def situation(circuit: Circuit | None = None, holds: dict[str, Hold] | None = None, **known: object) -> DecisionContext:
    return replace(DecisionContext(NOW, EndpointState(circuit or Circuit(), holds or {}), lease=LEASE), **known)  # type: ignore[arg-type]


def decided(returned: Sequence[SendResult], known: DecisionContext | None = None) -> Decision:
    return decide(returned, known or situation(), POLICY)


def one(found: Classification | None, known: DecisionContext | None = None, **changes: object) -> Transition:
    return decided([back(claim(**changes), found)], known).transitions[0]  # type: ignore[arg-type]


def window(*votes: Signal, user: str = "ada", at: float = NOW - 1) -> Window:
    """Return a window of exchanges, each of another media item."""
    return Window([Sample(signal, f"old-{number}", user, at) for number, signal in enumerate(votes)])


# Each stream by itself


def test_a_delivered_message_goes_on_and_ends_nothing_else() -> None:
    assert one(OK).action is Action.DELIVERED
    assert one(OK).continues


@pytest.mark.parametrize(
    "known",
    [situation(holds={"ada": Hold(NOW, NOW + 5, 1, "403")}), situation(stopping=True)],
    ids=["held", "stopping"],
)
def test_a_delivered_message_does_not_go_on_where_nothing_may_be_sent(known: DecisionContext) -> None:
    found = one(OK, known)
    assert found.action == Action.DELIVERED
    assert found.continues is False


def test_a_delivered_message_does_not_go_on_when_the_circuit_opens_in_the_same_pass() -> None:
    made = decided([back(claim(), OK), *(back(claim(number), UNFIT) for number in range(2, 7))])
    assert not made.endpoint.circuit.is_closed
    assert made.transitions[0].action == Action.DELIVERED
    assert made.transitions[0].continues is False


def test_nothing_sent_is_released_and_counts_nothing() -> None:
    found = one(None, failures=4, counted_attempts=2)
    assert found.action == Action.RELEASE
    assert found.failures == 4
    assert found.counted_attempts == 2


def test_a_lost_lease_changes_nothing_whatever_came_back() -> None:
    for found in (OK, UNFIT, HELD, REFUSED, None):
        made = decided([back(claim(is_probe=True, probes_user=True), found)], situation(OPEN, lost={f"{1:016x}"}))
        assert made.transitions[0].action is Action.LEASE_LOST
        assert made.endpoint.circuit == OPEN
        assert made.endpoint.holds == {}
        assert made.window == Window()


def test_a_failure_backs_off_and_counts_for_the_backoff_only() -> None:
    found = one(SERVER_ERROR, failures=3, counted_attempts=2)
    assert found.action == Action.RETRY
    assert found.delay == MEDIA_WAIT
    assert found.failures == 4
    assert found.counted_attempts == 2
    assert found.refused is False


@pytest.mark.parametrize(
    "found", [SERVER_ERROR, UNFIT, HELD, REFUSED, LIMITED, PARKED], ids=lambda one: one.verdict.value
)
def test_whoever_says_when_to_return_is_heeded(found: Classification) -> None:
    """With any status code."""
    made = one(replace(found, retry_after=900.0))
    assert made.action == Action.RETRY
    assert made.delay == 900.0


@pytest.mark.parametrize("found", [REFUSED, LIMITED, PARKED], ids=lambda one: one.verdict.value)
def test_a_refusal_that_says_when_to_return_parks_only_once_it_has_gone_on_for_a_day(found: Classification) -> None:
    later = replace(found, retry_after=60.0, conclusion=PARKED if found.verdict is Verdict.RETRY_LIMITED else None)
    for waited, action in ((0.0, Action.RETRY), (DAY - 1, Action.RETRY), (DAY, Action.PARK)):
        assert one(later, refused_since=NOW - waited, counted_attempts=40).action is action


def test_an_answer_that_is_not_the_last_word_is_asked_for_five_times_over_ten_minutes() -> None:
    for counted, waited, last in ((0, 0, False), (3, 900, False), (4, 599, False), (40, 300, False), (4, 600, True)):
        found = one(LIMITED, counted_attempts=counted, refused_since=NOW - waited)
        assert (found.action is Action.DELIVERED) == last, (counted, waited)
        if not last:
            assert found.delay == LIMITED_WAIT
            assert found.counted_attempts == counted + 1
            assert found.refused is True


def test_a_conclusion_is_recorded_as_what_it_is() -> None:
    found = one(LIMITED, counted_attempts=4, refused_since=NOW - TEN_MINUTES)
    assert found.attempt is not None
    assert found.attempt.classification == UNSEEN


def test_without_a_conclusion_of_its_own_an_answer_that_went_on_for_long_parks() -> None:
    found = one(replace(LIMITED, conclusion=None), counted_attempts=4, refused_since=NOW - TEN_MINUTES)
    assert found.action is Action.PARK


def test_a_status_of_what_is_not_there_for_long_is_refused_and_so_parked() -> None:
    assert one(NOT_THERE, counted_attempts=4, refused_since=NOW - TEN_MINUTES).action is Action.PARK


def test_what_the_other_side_contradicts_is_parked_at_once() -> None:
    assert one(PARKED).action is Action.PARK


def test_an_item_refused_among_others_is_parked_at_its_second_attempt() -> None:
    """Reliability row 38."""
    first = one(REFUSED, situation(last_delivery=NOW - 1))
    assert first.action == Action.RETRY
    assert first.delay == 1.0
    assert first.counted_attempts == 1
    second = one(REFUSED, situation(last_delivery=NOW - 0.5), counted_attempts=1, refused_since=NOW - 1)
    assert second.action is Action.PARK


def test_a_delivery_of_another_item_in_the_same_pass_counts_as_getting_through() -> None:
    made = decided([back(claim(counted_attempts=1, refused_since=NOW - 1), REFUSED), back(claim(2), OK)])
    assert made.transitions[0].action is Action.PARK


def test_a_first_refusal_never_parks_though_others_get_through_in_the_same_pass() -> None:
    made = decided([back(claim(2), OK), back(claim(), REFUSED), back(claim(3), OK)])
    assert made.transitions[1].action is Action.RETRY


def test_an_item_refused_alone_is_parked_at_its_third_attempt_over_ten_minutes() -> None:
    """Reliability row 38."""
    nobody = situation(last_delivery=NOW - 5000)
    second = one(REFUSED, nobody, counted_attempts=1, refused_since=NOW - 1)
    assert second.action == Action.RETRY
    assert second.delay == 599.0
    assert one(REFUSED, nobody, counted_attempts=2, refused_since=NOW - 599).action is Action.RETRY
    assert one(REFUSED, nobody, counted_attempts=2, refused_since=NOW - 600).action is Action.PARK


def test_a_clock_that_was_set_back_makes_no_refusal_older() -> None:
    found = one(REFUSED, situation(last_delivery=NOW - 5000), counted_attempts=2, refused_since=NOW + DAY)
    assert found.action is Action.RETRY


# The circuit breaker


def test_five_unfit_exchanges_in_a_row_open_the_circuit() -> None:
    made = decided([back(claim(number), UNFIT) for number in range(4)])
    assert made.endpoint.circuit.is_closed
    assert [found.delay for found in made.transitions] == [UNFIT_WAIT] * 4
    made = decided([back(claim(9), UNFIT)], situation(window=made.window))
    circuit = made.endpoint.circuit
    assert circuit.state == CircuitState.OPEN
    assert circuit.retry_at == NOW + CIRCUIT_WAIT
    assert circuit.failures == 1
    assert circuit.reason == "503"
    assert circuit.opened_at == NOW


def test_what_is_sent_several_times_in_one_attempt_counts_so_often() -> None:
    assert not decided([back(claim(), UNFIT, sends=5)]).endpoint.circuit.is_closed


def test_every_second_answer_unfit_opens_nothing() -> None:
    made = Decision([], EndpointState(), Window())
    for number in range(100):
        found = UNFIT if number % 2 else OK
        made = decided([back(claim(number), found)], situation(made.endpoint.circuit, window=made.window))
        assert made.endpoint.circuit.is_closed


@pytest.mark.parametrize(("unfit", "opens"), [(15, False), (16, True)])
def test_four_fifths_of_the_last_twenty_open_it(unfit: int, opens: bool) -> None:
    fit = 20 - unfit
    votes = [Signal.UNFIT] * (unfit - 3) + [Signal.FIT] * fit + [Signal.UNFIT] * 2
    made = decided([back(claim(77), UNFIT)], situation(window=window(*votes)))
    assert made.endpoint.circuit.is_closed is not opens


def test_of_the_last_twenty_those_older_than_half_a_minute_do_not_count() -> None:
    votes = [Signal.UNFIT, Signal.UNFIT, Signal.UNFIT, Signal.FIT, Signal.UNFIT] * 4
    last = back(claim(77), replace(UNFIT))
    assert not decided([last], situation(window=window(*votes, at=NOW - 29))).endpoint.circuit.is_closed
    assert decided([last], situation(window=window(*votes, at=NOW - 31))).endpoint.circuit.is_closed


def test_one_item_alone_opens_nothing_while_others_are_under_way() -> None:
    bad = [back(claim(), UNFIT, sends=5)]
    assert decided(bad, situation(in_flight=[InFlight("other", "ada")])).endpoint.circuit.is_closed
    assert not decided(bad, situation(in_flight=[InFlight(f"{1:016x}", "ada")])).endpoint.circuit.is_closed


def test_one_user_alone_opens_nothing_while_others_are_under_way() -> None:
    bad = [back(claim(number), UNFIT) for number in range(5)]
    assert decided(bad, situation(in_flight=[InFlight("other", "bob")])).endpoint.circuit.is_closed
    assert not decided(bad, situation(in_flight=[InFlight("other", "ada")])).endpoint.circuit.is_closed


def test_failures_and_silence_neither_open_the_circuit_nor_break_a_row_of_unfit_answers() -> None:
    made = decided([back(claim(number), NO_ANSWER) for number in range(30)])
    assert made.endpoint.circuit.is_closed
    row = [back(claim(number), found) for number, found in enumerate([UNFIT, SERVER_ERROR, UNFIT, UNFIT, UNFIT, UNFIT])]
    assert not decided(row).endpoint.circuit.is_closed


def test_the_stream_of_an_unfit_answer_waits_as_long_as_the_circuit() -> None:
    found = one(UNFIT, situation(OPEN), attempts=3, failures=2, counted_attempts=1)
    assert found.delay == 4.0
    assert found.failures == 2
    assert found.counted_attempts == 1


def test_a_failed_probe_waits_longer_and_makes_way_for_another_item() -> None:
    made = decided([back(claim(is_probe=True), UNFIT)], situation(HALF_OPEN))
    circuit = made.endpoint.circuit
    assert circuit.state == CircuitState.OPEN
    assert circuit.failures == 2
    assert circuit.retry_at == NOW + CIRCUIT_WAIT
    assert circuit.opened_at == OPEN.opened_at
    assert made.transitions[0].delay == CIRCUIT_WAIT


def test_a_probe_without_an_answer_has_failed() -> None:
    made = decided([back(claim(is_probe=True), NO_ANSWER)], situation(HALF_OPEN))
    assert made.endpoint.circuit.failures == 2


def test_a_probe_that_was_not_sent_lets_another_go_at_once() -> None:
    made = decided([back(claim(is_probe=True), None)], situation(HALF_OPEN))
    assert made.endpoint.circuit.state == CircuitState.OPEN
    assert made.endpoint.circuit.retry_at == NOW


@pytest.mark.parametrize("found", [OK, SERVER_ERROR, REFUSED, PARKED, LIMITED, HELD], ids=lambda one: one.verdict.value)
def test_any_other_answer_to_a_probe_closes_the_circuit(found: Classification) -> None:
    made = decided([back(claim(is_probe=True), found)], situation(HALF_OPEN, window=window(*[Signal.UNFIT] * 20)))
    assert made.endpoint.circuit == Circuit()
    assert Signal.UNFIT not in {exchange.signal for exchange in made.window.samples}


def test_a_fit_answer_to_what_was_under_way_closes_it_too_and_an_unfit_one_changes_nothing() -> None:
    assert decided([back(claim(), OK)], situation(OPEN)).endpoint.circuit.is_closed
    assert decided([back(claim(), UNFIT)], situation(OPEN)).endpoint.circuit == OPEN


def test_a_longer_retry_after_extends_an_open_circuit_and_a_shorter_one_does_not() -> None:
    longer = decided([back(claim(), replace(UNFIT, retry_after=300.0))], situation(OPEN)).endpoint.circuit
    assert longer.retry_at == NOW + 300.0
    assert longer.failures == 1
    assert decided([back(claim(), replace(UNFIT, retry_after=1.0))], situation(OPEN)).endpoint.circuit == OPEN


def test_a_failed_probe_does_not_shorten_what_was_asked_for_meanwhile() -> None:
    asked = replace(HALF_OPEN, retry_at=NOW + 400.0)
    assert decided([back(claim(is_probe=True), UNFIT)], situation(asked)).endpoint.circuit.retry_at == NOW + 400.0


def test_refusals_of_five_items_in_a_row_open_it_and_nothing_is_parked() -> None:
    refused = [back(claim(number, counted_attempts=9, refused_since=NOW - DAY), REFUSED) for number in range(5)]
    made = decided(refused)
    circuit = made.endpoint.circuit
    assert circuit.reason == "refuses everything: 422"
    assert circuit.refusing_since == NOW - 5.0
    assert {found.action for found in made.transitions} == {Action.RETRY}
    assert {found.counted_attempts for found in made.transitions} == {9}


def test_what_was_parked_since_the_first_of_a_row_of_refusals_goes_back() -> None:
    row = Window([Sample(Signal.REFUSED, f"old-{number}", "ada", NOW - 10 + number) for number in range(4)])
    assert decided([back(claim(), REFUSED)], situation(window=row)).endpoint.circuit.refusing_since == NOW - 15.0


def test_five_refusals_of_one_item_open_nothing() -> None:
    assert decided([back(claim(), REFUSED)] * 5, situation(window=window(Signal.FIT))).endpoint.circuit.is_closed


def test_where_everything_is_refused_a_refused_probe_has_failed_and_a_delivered_one_closes() -> None:
    refused = decided([back(claim(is_probe=True), REFUSED)], situation(REFUSING))
    assert refused.endpoint.circuit.failures == 2
    assert refused.transitions[0].action == Action.RETRY
    assert refused.endpoint.circuit.refusing_since == REFUSING.refusing_since
    assert decided([back(claim(is_probe=True), OK)], situation(REFUSING)).endpoint.circuit.is_closed


# Holds


def hold(**changes: object) -> Hold:
    return replace(Hold(NOW - 9, NOW + 5, 2, "403"), **changes)  # type: ignore[arg-type]


def test_a_user_who_is_refused_is_held_and_nobody_else() -> None:
    made = decided([back(claim(), HELD), back(claim(2, "bob"), OK)])
    assert made.endpoint.holds == {"ada": Hold(NOW, NOW + HOLD_WAIT, 1, "403")}
    assert made.endpoint.circuit.is_closed
    held, others = made.transitions
    assert held.delay == HOLD_WAIT
    assert held.failures == 0
    assert held.counted_attempts == 0
    assert others.continues


def test_a_hold_lasts_as_long_as_was_asked_for() -> None:
    made = decided([back(claim(), replace(HELD, retry_after=30.0))])
    assert made.endpoint.holds["ada"].until == NOW + 30.0


def test_what_was_under_way_of_a_held_user_changes_the_hold_only_by_a_longer_retry_after() -> None:
    known = situation(holds={"ada": hold()})
    assert decided([back(claim(), HELD)], known).endpoint.holds["ada"] == hold()
    assert decided([back(claim(), OK)], known).endpoint.holds["ada"] == hold()
    asked = decided([back(claim(), replace(HELD, retry_after=60.0))], known).endpoint.holds["ada"]
    assert asked.until == NOW + 60.0
    assert asked.failures == 2
    assert asked.since == NOW - 9


def test_a_refused_probe_holds_the_user_for_longer() -> None:
    made = decided([back(claim(probes_user=True), HELD)], situation(holds={"ada": hold()}))
    assert made.endpoint.holds["ada"] == hold(until=NOW + HOLD_WAIT, failures=3)


@pytest.mark.parametrize("found", [OK, REFUSED, PARKED, LIMITED], ids=lambda one: one.verdict.value)
def test_a_probe_that_is_let_in_ends_the_hold(found: Classification) -> None:
    made = decided([back(claim(probes_user=True), found)], situation(holds={"ada": hold()}))
    assert made.endpoint.holds == {}
    assert made.transitions[0].continues == (found is OK)


@pytest.mark.parametrize("found", [UNFIT, SERVER_ERROR, NO_ANSWER], ids=["unfit", "failure", "silence"])
def test_a_probe_that_tells_nothing_of_the_user_keeps_the_hold_as_it_was(found: Classification) -> None:
    made = decided([back(claim(probes_user=True), found)], situation(holds={"ada": hold()}))
    assert made.endpoint.holds["ada"] == hold(until=NOW + HOLD_WAIT)


def test_a_user_s_probe_that_was_not_sent_lets_another_go_at_once() -> None:
    made = decided([back(claim(probes_user=True), None)], situation(holds={"ada": hold()}))
    assert made.endpoint.holds["ada"].until == NOW


def test_a_row_of_held_answers_never_opens_the_circuit() -> None:
    made = decided([back(claim(number, f"user-{number}"), HELD) for number in range(40)])
    assert made.endpoint.circuit.is_closed
    assert len(made.endpoint.holds) == 40
