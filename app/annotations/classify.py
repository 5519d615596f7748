"""What an answer means for its message, but for a 409: the table of the design, as data. Nothing here does I/O.

Trouble of the network or of the other service never parks a message; only a refusal of this message may. How often an
answer is asked for again before it counts is decided in `app.outbox.decide`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from app.formats.retry_after import retry_after_seconds
from app.http_exchange.responses import ConnectError, ProtocolError, Response, TLSError, TransportError
from app.outbox.messages import Classification, Kind, Message, Outcome, Verdict

SUCCESS = range(200, 300)
REDIRECTS = range(300, 400)


class Rule(NamedTuple):
    """A verdict, and whether the other side may have acted on the request all the same."""

    verdict: Verdict
    outcome_unknown: bool = False


DELIVERED, RETRY, LIMITED = Rule(Verdict.DELIVERED), Rule(Verdict.RETRY), Rule(Verdict.RETRY_LIMITED)
REFUSED, HOLD, UNFIT = Rule(Verdict.REFUSED), Rule(Verdict.HOLD), Rule(Verdict.UNFIT)
# A gateway says 5xx also for what the service behind it has done, or done half.
RETRY_OUTCOME_UNKNOWN, UNFIT_OUTCOME_UNKNOWN = Rule(Verdict.RETRY, True), Rule(Verdict.UNFIT, True)

ANY: dict[int, Rule] = {401: HOLD, 403: HOLD, 408: RETRY, 425: RETRY, 429: HOLD, 501: RETRY, 503: UNFIT_OUTCOME_UNKNOWN}
CREATE = ANY | {404: UNFIT, 405: UNFIT, 501: UNFIT}
STATUS = ANY | {404: LIMITED, 410: DELIVERED}
BY_CLASS = {2: DELIVERED, 3: UNFIT, 4: REFUSED}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent: `call` names it to people.

    `outcome_unknown` says that an earlier attempt at the message may have been accepted; `one_token` that every user's
    requests carry the same token; `now` is in seconds since the epoch.
    """

    message: Message
    call: str
    outcome_unknown: bool
    one_token: bool
    now: float


def classify(sent: Sent, response: Response) -> Classification:
    """What the answer to a message means, but for 409, which is `app.annotations.conflict`'s."""
    detail = f"{sent.call} answered {response.status}{elsewhere(response)}"
    rule = _rule(sent.message.kind, response.status)
    if response.status in SUCCESS:
        strange = _not_from_there(sent.message.media_id, response)
        if strange is not None:
            return classified(sent, UNFIT_OUTCOME_UNKNOWN, f"{detail} with {strange}", response)
    if rule is DELIVERED and response.status not in SUCCESS:
        gone = f"{detail}: gone there for good, nothing more to tell"
        return replace(classified(sent, rule, gone, response), outcome=Outcome.SUPERSEDED)
    found = classified(sent, rule, detail, response)
    if rule is LIMITED:
        return replace(found, conclusion=replace(found, verdict=Verdict.REFUSED, retry_after=None))
    return found


def classify_error(sent: Sent, error: TransportError, *, sent_before: bool) -> Classification:
    """A request that brought no answer. `sent_before`: an earlier request of this attempt did arrive, or may have."""
    detail = f"{sent.call}: {error.reason}"
    if isinstance(error, ConnectError):
        return Classification(Verdict.UNFIT, detail, unsent=not sent_before, outcome_unknown=sent.outcome_unknown)
    if not error.may_have_arrived:
        return Classification(Verdict.RETRY, detail, outcome_unknown=sent.outcome_unknown)
    unfit = isinstance(error, TLSError | ProtocolError)
    return Classification(Verdict.UNFIT if unfit else Verdict.RETRY, detail, outcome_unknown=True)


def _rule(kind: Kind, status: int) -> Rule:
    rules = CREATE if kind is Kind.CREATE else STATUS
    return rules.get(status) or BY_CLASS.get(status // 100, RETRY_OUTCOME_UNKNOWN)


def classified(sent: Sent, rule: Rule, detail: str, response: Response, status: int | None = None) -> Classification:
    """A response by its rule; `status` is that of the message's own answer, where this one is a look's."""
    verdict = rule.verdict
    if verdict is Verdict.HOLD and sent.one_token:
        verdict = Verdict.UNFIT
    headers = response.headers
    asked = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"), sent.now)
    return Classification(
        verdict,
        detail,
        status or response.status,
        retry_after=None if verdict is Verdict.DELIVERED else asked,
        outcome_unknown=verdict is not Verdict.DELIVERED and (rule.outcome_unknown or sent.outcome_unknown),
        excerpt=response.text,
    )


def elsewhere(response: Response) -> str:
    """Where a redirect leads, for people."""
    location = response.headers.get("Location")
    return f" to {location}" if location and response.status in REDIRECTS else ""


def _not_from_there(media_id: str, response: Response) -> str | None:
    """Why a 2xx cannot come from the annotations API, which answers with JSON or without a body; None where it can."""
    is_json = response.media_type == "application/json" or response.media_type.endswith("+json")
    if response.media_type == "application/problem+json":
        return "a problem document"
    if response.is_compressed or response.cut:
        return None if is_json else f"a body of type {response.media_type or 'unknown'}"
    if not response.body.strip():
        return None
    try:
        content = response.json()
    except ValueError:
        return f"a body that is not JSON ({response.media_type or 'no type'})"
    return "another API's error" if _is_error(media_id, content) else None


def _is_error(media_id: str, content: Any) -> bool:
    """Whether a JSON object tells of an error and is not the record of the media item, which may hold one."""
    if not isinstance(content, dict) or content.get("id") == media_id:
        return False
    if any(content.get(name) for name in ("error", "errors")) or content.get("success") is False:
        return True
    codes = [content.get(name) for name in ("status", "statusCode", "code")]
    return any(type(code) is int and 400 <= code < 600 for code in codes)
