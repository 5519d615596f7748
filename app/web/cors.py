"""CORS: the pages of other origins that may call the API, exactly those of CORS_ORIGINS.

Tokens are sent in a header and never in a cookie, so credentials are not allowed. A browser lets a page read a response
only with these headers, whatever its status. Every response therefore has them, and every preflight of an allowed
origin succeeds, even for unknown paths; otherwise the page would see "Failed to fetch" instead of the problem.
"""

from collections.abc import Sequence

from flask import Flask, Response, current_app, request

from app.settings import Settings

EXTENSION = "detections-cors"
MAX_AGE_SECONDS = 600
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Disposition",
    "Prefer",
    "X-Request-Id",
    "traceparent",
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "Last-Event-ID",
    "Tus-Resumable",
    "Upload-Length",
    "Upload-Defer-Length",
    "Upload-Offset",
    "Upload-Metadata",
    "Upload-Concat",
    "Upload-Checksum",
    "X-HTTP-Method-Override",
)
"""Every request header in the API's description."""

EXPOSED_HEADERS = (
    "Location",
    "Preference-Applied",
    "X-Request-Id",
    "Retry-After",
    "WWW-Authenticate",
    "Allow",
    "ETag",
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "Content-Location",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Length",
    "Upload-Defer-Length",
    "Upload-Offset",
    "Upload-Metadata",
    "Upload-Concat",
    "Upload-Expires",
)
"""Every response header in the API's description, except those that pages can always read."""

Headers = list[tuple[str, str]]


class CorsPolicy:
    """The CORS headers for each origin; none if no origin is allowed."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def allows(self, origin: str | None) -> bool:
        """Return whether pages of that origin may call the API."""
        return origin in self._origins

    def headers(self, origin: str | None) -> Headers:
        """Return the response headers for a request with that `Origin`."""
        if not self._origins:
            return []
        # Also without an Origin: a cache must not give such a response to a page that needs the headers.
        headers = [("Vary", "Origin")]
        if origin is not None and self.allows(origin):
            headers += [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS)),
            ]
        return headers


def install(app: Flask, settings: Settings) -> None:
    """Add CORS headers to every response, errors included."""
    app.extensions[EXTENSION] = policy = CorsPolicy(settings.cors_origins)

    def answer_preflight() -> Response | None:
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return _preflight() if is_preflight and policy.allows(request.headers.get("Origin")) else None

    def add_headers(response: Response) -> Response:
        response.headers.extend(policy.headers(request.headers.get("Origin")))
        return response

    app.before_request(answer_preflight)
    app.after_request(add_headers)


def _preflight() -> Response:
    methods = set().union(*(rule.methods or () for rule in current_app.url_map.iter_rules()))
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = ", ".join(sorted(methods))
    response.headers["Access-Control-Allow-Headers"] = ", ".join(ALLOWED_HEADERS)
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
    return response
