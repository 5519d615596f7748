"""What an answer means for its message: the table of the design, as data. Nothing here does I/O.

Trouble of the network or of the other service never parks a message; only a definite refusal of this message does.
"""

from typing import Any, NamedTuple

from app.annotations.replies import NoAnswer, Reply
from app.outbox.messages import Answer, Kind, Message, Outcome, Verdict
from app.retry_after import retry_after_seconds

CONFLICT = 409
MAX_TRIES = 5
SUCCESS = range(200, 300)
REDIRECTS = range(300, 400)
SAYS_WHEN = (429, 503)
NO_LOOK = (404, 405, 501)
"""Answers to a GET that say there is none there to ask, or nothing to see."""

STATUSES_OF_OTHERS = (4, 5)
"""Statuses that only other services write: past anything that this one has to say."""

FIELD = {Kind.CREATE: "mediaType", Kind.STATUS: "mediaStatus"}
DONE = {Kind.CREATE: Outcome.DUPLICATE, Kind.STATUS: Outcome.SUPERSEDED}


class Rule(NamedTuple):
    """A verdict with what belongs to it; see Answer."""

    verdict: Verdict
    uncertain: bool = False
    max_tries: int | None = None


DELIVERED = Rule(Verdict.DELIVERED)
PARK = Rule(Verdict.PARK)
GATE = Rule(Verdict.CLOSE_GATE)
AGAIN = Rule(Verdict.RETRY)
A_FEW_TIMES = Rule(Verdict.RETRY, max_tries=MAX_TRIES)
# A gateway says 5xx also for what the service behind it has done, or done half.
AGAIN_FATE_UNKNOWN = Rule(Verdict.RETRY, uncertain=True)
GATE_FATE_UNKNOWN = Rule(Verdict.CLOSE_GATE, uncertain=True)

ANY: dict[int, Rule] = {
    401: GATE,
    403: GATE,
    408: AGAIN,
    425: AGAIN,
    429: GATE,
    501: AGAIN,
    503: GATE_FATE_UNKNOWN,
}
CREATE = ANY | {404: GATE, 405: GATE, 501: GATE}
STATUS = ANY | {404: A_FEW_TIMES}
BY_CLASS = {2: DELIVERED, 3: GATE, 4: PARK}
LOOK_BY_CLASS = BY_CLASS | {2: A_FEW_TIMES, 4: A_FEW_TIMES}  # an unreadable record: in the end, a person looks


def rule_for(kind: Kind, status: int) -> Rule:
    """The rule for an answer to a message; a 409 is for `reconcile`."""
    rules = CREATE if kind is Kind.CREATE else STATUS
    return rules.get(status) or BY_CLASS.get(status // 100, AGAIN_FATE_UNKNOWN)


def judge(message: Message, call: str, reply: Reply, *, doubtful: bool, now: float) -> Answer:
    """The answer to a message, but for 409.

    `call` names the request; `doubtful` says that an earlier send of the message may have been accepted; `now` is in
    seconds since the epoch.
    """
    rule = rule_for(message.kind, reply.status)
    return _answer(rule, f"{call} answered {reply.status}{_elsewhere(reply)}", reply, doubtful=doubtful, now=now)


def judge_no_answer(call: str, trouble: NoAnswer, *, doubtful: bool, sent_before: bool) -> Answer:
    """A send that brought none. `sent_before`: an earlier send of this try did arrive, or may have."""
    detail = f"{call}: {trouble.reason}"
    if trouble.connecting:
        return Answer(Verdict.CLOSE_GATE, detail, unsent=not sent_before, uncertain=doubtful)
    if not trouble.sent:
        return Answer(Verdict.RETRY, detail, uncertain=doubtful)
    return Answer(Verdict.CLOSE_GATE if trouble.untrusted else Verdict.RETRY, detail, uncertain=True)


def reconcile(
    message: Message, call: str, conflict: Reply, look: str, found: Reply | NoAnswer, *, doubtful: bool, now: float
) -> Answer:
    """A 409, by what a GET (named by `look`) then found."""
    detail = f"{call} answered {conflict.status}; {look}"
    if isinstance(found, NoAnswer):
        return Answer(Verdict.RETRY, f"{detail}: {found.reason}", CONFLICT, uncertain=doubtful, excerpt=conflict.text)
    detail += f" answered {found.status}{_elsewhere(found)}"
    if found.status in NO_LOOK:
        settled = message.kind is Kind.CREATE or doubtful
        return _settled(message, f"{detail}: taken for done, unseen" if settled else detail, conflict, done=settled)
    ours, theirs = _compared(message, found)
    if theirs is not None:
        done = theirs == ours or (message.kind is Kind.STATUS and theirs in STATUSES_OF_OTHERS)
        return _settled(message, f"{detail}: {FIELD[message.kind]} is {theirs} there, {ours} here", conflict, done=done)
    rule = ANY.get(found.status) or LOOK_BY_CLASS.get(found.status // 100, AGAIN)
    rule = rule._replace(uncertain=False)  # a look does nothing that could be half done
    return _answer(rule, detail, found, doubtful=doubtful, now=now, status=CONFLICT)


def _compared(message: Message, found: Reply) -> tuple[Any, Any]:
    """Our value and theirs, which is None where the record does not have a proper one."""
    name = FIELD[message.kind]
    ours = message.payload[name]
    record = (found.record() if found.status in SUCCESS else None) or {}
    theirs = record.get(name)
    return ours, theirs if type(theirs) is type(ours) else None


def _settled(message: Message, detail: str, conflict: Reply, *, done: bool) -> Answer:
    if done:
        outcome = DONE[message.kind]
        return Answer(Verdict.DELIVERED, detail, CONFLICT, outcome=outcome, excerpt=conflict.text)
    return Answer(Verdict.PARK, detail, CONFLICT, excerpt=conflict.text)


def _answer(rule: Rule, detail: str, reply: Reply, *, doubtful: bool, now: float, status: int | None = None) -> Answer:
    headers = reply.headers
    return Answer(
        rule.verdict,
        detail,
        status or reply.status,
        retry_after=retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), now)
        if reply.status in SAYS_WHEN
        else None,
        uncertain=rule.verdict is not Verdict.DELIVERED and (rule.uncertain or doubtful),
        max_tries=rule.max_tries,
        excerpt=reply.text,
    )


def _elsewhere(reply: Reply) -> str:
    location = reply.headers.get("Location")
    return f" to {location}" if location and reply.status in REDIRECTS else ""
