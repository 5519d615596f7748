"""Which pages of other origins may call the API from a browser: those of CORS_ORIGINS, each exactly, and no other.

Tokens come in a header that a page must know, never in a cookie, so no credentials are allowed.
"""

import re

from flask import Flask, Response
from flask_cors import CORS

from app.settings import Settings

METHODS = ("GET", "HEAD", "POST", "OPTIONS")
MAX_AGE_SECONDS = 600
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Disposition",
    "Prefer",
    "X-Request-Id",
    "Range",
    "Last-Event-ID",
)
EXPOSED_HEADERS = (
    "Location",
    "Preference-Applied",
    "X-Request-Id",
    "Retry-After",
    "Content-Disposition",
    "Content-Range",
)


def install(app: Flask, settings: Settings) -> None:
    """Tell browsers about the configured origins on every answer, refusals included; without any, say nothing."""
    if not settings.cors_origins:
        return
    app.after_request(_varies_by_origin)  # run after that of flask-cors: the last one given is the first one run
    CORS(
        app,
        # As patterns: flask-cors takes a text with brackets, as in an IPv6 address, for one of its own.
        origins=[re.compile(rf"{re.escape(origin)}\Z") for origin in settings.cors_origins],
        methods=METHODS,
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        supports_credentials=False,
        max_age=MAX_AGE_SECONDS,
        always_send=False,
    )


def _varies_by_origin(response: Response) -> Response:
    """Of an answer without the header as well: a cache must not give it to a page that would need one with it."""
    response.vary.add("Origin")
    return response
