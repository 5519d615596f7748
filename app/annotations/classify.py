"""Classifies the answers to messages, except 409 (`app.annotations.conflict`), by rules for each status code. No I/O.

Errors of the network or of the annotations service never park a message; only a refusal of the message itself may.
`app.outbox.decide` decides how often an answer must be repeated before it counts.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from app.formats.retry_after import retry_after_seconds
from app.http_exchange.responses import ConnectError, ProtocolError, Response, TLSError, TransportError
from app.outbox.messages import Classification, Message, MessageKind, Outcome, Verdict

SUCCESS = range(200, 300)
REDIRECTS = range(300, 400)


class Rule(NamedTuple):
    """A verdict, and whether the request may have been carried out nevertheless."""

    verdict: Verdict
    outcome_unknown: bool = False


DELIVERED, RETRY, LIMITED = Rule(Verdict.DELIVERED), Rule(Verdict.RETRY), Rule(Verdict.RETRY_LIMITED)
REFUSED, HOLD, UNFIT = Rule(Verdict.REFUSED), Rule(Verdict.HOLD), Rule(Verdict.UNFIT)
# A gateway may answer 5xx although the service behind it has carried the request out, or half of it.
RETRY_OUTCOME_UNKNOWN, UNFIT_OUTCOME_UNKNOWN = Rule(Verdict.RETRY, True), Rule(Verdict.UNFIT, True)

COMMON_RULES: dict[int, Rule] = {
    401: HOLD,
    403: HOLD,
    408: RETRY,
    425: RETRY,
    429: HOLD,
    501: RETRY,
    503: UNFIT_OUTCOME_UNKNOWN,
}
CREATE_RULES = COMMON_RULES | {404: UNFIT, 405: UNFIT, 501: UNFIT}
STATUS_RULES = COMMON_RULES | {404: LIMITED, 410: DELIVERED}
RULES_BY_CLASS = {2: DELIVERED, 3: UNFIT, 4: REFUSED}


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request as it was sent; `call` is its method and path.

    `outcome_unknown` says that an earlier attempt may have been accepted, `one_token` that the requests of all users
    carry the same token. `now` is in seconds since 1970.
    """

    message: Message
    call: str
    outcome_unknown: bool
    one_token: bool
    now: float


def classify(sent: SentRequest, response: Response) -> Classification:
    """Classify the answer to a message, except 409."""
    detail = f"{sent.call} answered {response.status}{redirect_target(response)}"
    rule = _rule(sent.message.kind, response.status)
    if response.status in SUCCESS:
        foreign = _foreign_content(sent.message.media_id, response)
        if foreign is not None:
            return classified(sent, UNFIT_OUTCOME_UNKNOWN, f"{detail} with {foreign}", response)
    if rule is DELIVERED and response.status not in SUCCESS:
        gone = f"{detail}: the media item was deleted there, so no status is needed"
        return replace(classified(sent, rule, gone, response), outcome=Outcome.SUPERSEDED)
    found = classified(sent, rule, detail, response)
    if rule is LIMITED:
        return replace(found, conclusion=replace(found, verdict=Verdict.REFUSED, retry_after=None))
    return found


def classify_error(sent: SentRequest, error: TransportError, *, sent_before: bool) -> Classification:
    """Classify a request without an answer. `sent_before`: an earlier request of this attempt may have arrived."""
    detail = f"{sent.call}: {error.reason}"
    if isinstance(error, ConnectError):
        return Classification(Verdict.UNFIT, detail, unsent=not sent_before, outcome_unknown=sent.outcome_unknown)
    if not error.may_have_arrived:
        return Classification(Verdict.RETRY, detail, outcome_unknown=sent.outcome_unknown)
    unfit = isinstance(error, TLSError | ProtocolError)
    return Classification(Verdict.UNFIT if unfit else Verdict.RETRY, detail, outcome_unknown=True)


def _rule(kind: MessageKind, status: int) -> Rule:
    rules = CREATE_RULES if kind is MessageKind.CREATE else STATUS_RULES
    return rules.get(status) or RULES_BY_CLASS.get(status // 100, RETRY_OUTCOME_UNKNOWN)


def classified(
    sent: SentRequest, rule: Rule, detail: str, response: Response, status: int | None = None
) -> Classification:
    """Classify a response by a rule; `status` replaces the response's own if the response is that of a lookup."""
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


def redirect_target(response: Response) -> str:
    """Return where a redirect leads, as a suffix for a text."""
    location = response.headers.get("Location")
    return f" to {location}" if location and response.status in REDIRECTS else ""


def _foreign_content(media_id: str, response: Response) -> str | None:
    """Return what shows that a 2xx is not from the annotations API, which sends JSON or no body; None if it may be."""
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
    """Whether a JSON object reports an error. The media item's record may have a field "error" and is no report."""
    if not isinstance(content, dict) or content.get("id") == media_id:
        return False
    if any(content.get(name) for name in ("error", "errors")) or content.get("success") is False:
        return True
    codes = [content.get(name) for name in ("status", "statusCode", "code")]
    return any(type(code) is int and 400 <= code < 600 for code in codes)
