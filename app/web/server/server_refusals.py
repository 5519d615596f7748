"""Problem responses for requests that gunicorn itself rejects before the application sees them.

gunicorn's own responses are HTML without the service's headers: pages of other origins could not read them, and clients
would need to support two formats.
"""

import json
import re
import secrets
from http import HTTPStatus

import structlog

from app.web.cors import CorsPolicy
from app.web.problems import TYPE_BASE
from app.web.security_headers import HEADERS
from app.web.server.redaction import without_signatures
from app.web.tracing import HEADER as REQUEST_ID

log = structlog.get_logger()

REFUSALS: dict[int, tuple[str, str]] = {
    400: ("bad-request", "The request is malformed"),
    403: ("forbidden", "Not allowed"),
    414: ("uri-too-long", "The address is too long"),
    417: ("expectation-failed", "The expectation cannot be met"),
    431: ("request-header-fields-too-large", "The headers are too long"),
    500: ("internal", "Internal error"),
    501: ("not-implemented", "The transfer encoding is not supported"),
}
"""The problem's name and title by the status that gunicorn chose."""

MAX_SHOWN = 200
_ORIGIN = re.compile(rb"^origin:[ \t]*([\x21-\x7e]{1,300})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def refusal(status: int, detail: str, *, client: str, head: bytes = b"", policy: CorsPolicy | None = None) -> bytes:
    """Log a rejected request, and return the complete response, which closes the connection.

    `head` is what was received of the request's head; if it has an allowed origin, pages of that origin may read the
    response.
    """
    status = status if status in REFUSALS else 400
    name, title = REFUSALS[status]
    request_id = secrets.token_hex(16)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and name == "internal":
        detail = "An unexpected error occurred; the request id leads to its log entry."
    log.warning(
        "refused_by_server",
        status=status,
        detail=without_signatures(detail[:MAX_SHOWN]),
        client=client,
        request_id=request_id,
    )
    problem = {"type": TYPE_BASE + name, "title": title, "status": status, "detail": detail[:MAX_SHOWN]}
    body = json.dumps(problem | {"requestId": request_id}).encode()
    origin = _ORIGIN.search(head.partition(b"\r\n\r\n")[0])
    headers = [
        ("Connection", "close"),
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        (REQUEST_ID, request_id),
        *HEADERS.items(),
        *(policy.headers(origin[1].decode() if origin else None) if policy else ()),
    ]
    lines = [f"HTTP/1.1 {status} {title}", *(f"{header}: {value}" for header, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body
