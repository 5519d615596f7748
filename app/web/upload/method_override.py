"""`X-HTTP-Method-Override`, for clients behind proxies that allow only GET and POST.

It applies only to a POST to a resumable upload, whose protocol defines it. Authentication is unchanged.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, request

METHODS = frozenset({"PATCH", "DELETE", "HEAD"})
PATHS = "/uploads/"
_WAS_HEAD = "detections.head_by_override"


def install(app: Flask) -> None:
    """Add the middleware."""
    app.wsgi_app = MethodOverride(app.wsgi_app)  # type: ignore[method-assign]


def is_head_request() -> bool:
    """Return whether the request is a HEAD, or a POST that replaces one."""
    return request.method == "HEAD" or _WAS_HEAD in request.environ


class MethodOverride:
    """WSGI middleware that applies the header.

    The server still treats the request as a POST, and its client expects a body if the response has a length; a
    replaced HEAD is therefore handled as a GET.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "").strip().upper()
        if method in METHODS and environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"].startswith(PATHS):
            environ["REQUEST_METHOD"] = method
            if method == "HEAD":
                environ["REQUEST_METHOD"] = "GET"
                environ[_WAS_HEAD] = True
        return self._application(environ, start_response)
