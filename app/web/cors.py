"""Which pages of other origins may call the API from a browser: those of CORS_ORIGINS, each exactly, and no other.

Tokens come in a header that a page must know, never in a cookie, so no credentials are allowed. A browser reads an
answer only if it carries these headers, whatever its status; so every answer does, and every preflight of an allowed
origin is answered, also for a path that does not exist: else the page is told "Failed to fetch" instead of the problem.
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
"""Every request header that the API's description names."""

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
"""Every response header that the description names, but for those that a page may read anyway."""

Headers = list[tuple[str, str]]


class CorsPolicy:
    """What is told to a page of some origin; without any allowed origin nothing is."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    def allows(self, origin: str | None) -> bool:
        """Whether pages of that origin may call."""
        return origin in self._origins

    def headers(self, origin: str | None) -> Headers:
        """The headers of an answer to a request with that `Origin`."""
        if not self._origins:
            return []
        # Of an answer to no page as well: a cache must not give it to a page that would need one with the headers.
        headers = [("Vary", "Origin")]
        if origin is not None and self.allows(origin):
            headers += [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS)),
            ]
        return headers


def install(app: Flask, settings: Settings) -> None:
    """Tell browsers about the configured origins on every answer, refusals included."""
    app.extensions[EXTENSION] = policy = CorsPolicy(settings.cors_origins)

    def answer_preflight() -> Response | None:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return _preflight() if asks and policy.allows(request.headers.get("Origin")) else None

    def tell(response: Response) -> Response:
        response.headers.extend(policy.headers(request.headers.get("Origin")))
        return response

    app.before_request(answer_preflight)
    app.after_request(tell)


def _preflight() -> Response:
    methods = set().union(*(rule.methods or () for rule in current_app.url_map.iter_rules()))
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = ", ".join(sorted(methods))
    response.headers["Access-Control-Allow-Headers"] = ", ".join(ALLOWED_HEADERS)
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
    return response
