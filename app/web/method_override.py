"""`X-HTTP-Method-Override`, for clients behind proxies that let only GET and POST through.

Heeded for resumable uploads alone, whose protocol names it, and in a POST alone: the token is checked as ever.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, request

METHODS = frozenset({"PATCH", "DELETE", "HEAD"})
PATHS = "/uploads/"
_WAS_HEAD = "detections.head_by_override"


def install(app: Flask) -> None:
    """Heed the header."""
    app.wsgi_app = MethodOverride(app.wsgi_app)  # type: ignore[method-assign]


def asks_for_head() -> bool:
    """Whether the request at hand is a HEAD, or a POST that stands for one."""
    return request.method == "HEAD" or _WAS_HEAD in request.environ


class MethodOverride:
    """A WSGI application whose POST to an upload is what its header says.

    The server takes it for a POST all the same, and its client waits for a body where the answer tells a length: so one
    that stands for HEAD is answered as a GET.
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
