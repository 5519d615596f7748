"""Sequences of answers, decided one after the other and compared with a simple model of a stream and a circuit."""

from collections import deque
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.outbox.circuit import Circuit, CircuitState, EndpointState, Window
from app.outbox.decide import Action, decide
from app.outbox.decide_endpoint import DecisionContext
from app.outbox.messages import Attempt, Classification, SendResult, Verdict
from tests.outbox.test_decide import NOW, POLICY, claim

CLOSED, OPEN = CircuitState.CLOSED, CircuitState.OPEN
verdicts = st.sampled_from([verdict for verdict in Verdict if verdict is not Verdict.HOLD])
steps = st.lists(st.tuples(verdicts, st.sampled_from([0.0, 1.0, 10.0, 40.0, 700.0]), st.booleans()), max_size=60)


@dataclass
class Model:
    """The rules in another form: each exchange is of another media item, and all are of one user."""

    samples: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=20))
    is_open: bool = False
    refuses: bool = False

    def take(self, verdict: Verdict, now: float) -> None:
        """Take one answer; while the circuit is open, that of a probe."""
        signal = {
            Verdict.UNFIT: "unfit",
            Verdict.REFUSED: "refused",
            Verdict.DELIVERED: "fit",
            Verdict.PARK: "fit",
        }.get(verdict)
        if self.is_open:
            failed = signal == "unfit" or (signal == "refused" and self.refuses)
            if not failed:
                self.is_open, self.refuses = False, False
                self.samples.clear()
            return
        if signal is None:
            return
        self.samples.append((signal, now))
        last = [one for one, _at in self.samples][-5:]
        recent = [one for one, at in self.samples if now - at <= 30]
        if len(last) == 5 and set(last) == {"refused"}:
            self.is_open = self.refuses = True
        elif (len(last) == 5 and set(last) == {"unfit"}) or (len(recent) == 20 and recent.count("unfit") >= 16):
            self.is_open = True


@settings(max_examples=4 * settings().max_examples)
@given(steps)
def test_the_circuit_opens_and_closes_as_the_design_says(sequence: list[tuple[Verdict, float, bool]]) -> None:
    model, circuit, window, now = Model(), Circuit(), Window(), NOW
    for number, (verdict, seconds, restarted) in enumerate(sequence):
        now += seconds
        if restarted:  # the circuit is kept, the window is not
            window = Window()
            model.samples.clear()
        probe = not circuit.is_closed
        returned = SendResult(
            claim(number, is_probe=probe), Attempt(Classification(verdict, "answered", 400), now, 0.1)
        )
        made = decide([returned], DecisionContext(now, EndpointState(circuit), window), POLICY)
        model.take(verdict, now)
        circuit, window = made.endpoint.circuit, made.window
        assert circuit.state is (OPEN if model.is_open else CLOSED)
        assert circuit.refuses_everything == model.refuses


@settings(max_examples=4 * settings().max_examples)
@given(steps)
def test_one_stream_waits_is_parked_or_delivered_as_the_design_says(
    sequence: list[tuple[Verdict, float, bool]],
) -> None:
    """With a circuit that no answer opens, refusals park after three attempts and inconclusive answers after five, both
    over at least ten minutes; failures never do."""
    current, now = claim(), NOW
    counted, since = 0, None
    for verdict, seconds, says_when in sequence:
        now += seconds
        found = Classification(verdict, "answered", 400, retry_after=5.0 if says_when else None)
        situation = DecisionContext(now, EndpointState())
        [made] = decide([SendResult(current, Attempt(found, now, 0.1))], situation, POLICY).transitions
        final = verdict in (Verdict.REFUSED, Verdict.RETRY_LIMITED, Verdict.PARK)
        waited = 0.0 if since is None else now - since
        put_off = says_when and waited < 86_400
        enough = {Verdict.REFUSED: 3, Verdict.RETRY_LIMITED: 5}.get(verdict, 0)
        parks = final and not put_off and (enough == 0 or (counted + 1 >= enough and waited >= 600))
        expected = Action.DELIVERED if verdict is Verdict.DELIVERED else Action.PARK if parks else Action.RETRY
        assert made.action is expected
        if expected is not Action.RETRY:
            return
        assert not says_when or made.delay >= 5.0
        since = now if final and since is None else since
        counted += int(final and not put_off)
        assert made.counted_attempts == counted
        current = replace(
            current,
            attempts=current.attempts + 1,
            failures=made.failures,
            counted_attempts=counted,
            refused_since=since,
        )
