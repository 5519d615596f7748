"""A request id and a log line for each request. All lines logged during a request have its id and client address.

The id is the client's `X-Request-Id`, else the trace id of its `traceparent`, else a random one.
"""

import re
import secrets
import time

import structlog
from flask import Flask, Response, current_app, g, request

from app.formats import trace_context
from app.formats.trace_context import trace_id_of
from app.web.auth import client_address

log = structlog.get_logger()

HEADER = "X-Request-Id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


def install(app: Flask) -> None:
    """Accept or create the request's id, return it in the response, and log the request."""
    client_address.install(app, client_address.Proxies())
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    requested = request.headers.get(HEADER, "")
    if not _ACCEPTED.fullmatch(requested):
        requested = trace_id_of(request.headers.get(trace_context.HEADER, "")) or secrets.token_hex(16)
    g.request_id = requested
    g.began = time.monotonic()
    structlog.contextvars.clear_contextvars()
    client = current_app.extensions[client_address.EXTENSION].client(request.environ)
    structlog.contextvars.bind_contextvars(request_id=g.request_id, client=client)


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    log.info(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        user=g.get("user_id"),
        milliseconds=round((time.monotonic() - g.began) * 1000, 1),
    )
    return response
