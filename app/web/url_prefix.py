"""Serves the application below URL_PREFIX, the path at which a proxy publishes it.

Flask builds every address (the page's files, `Location`, signed links, the description's server) from WSGI's
SCRIPT_NAME, which is set here; the prefix is removed from the path if the proxy passed it on. Proxies that keep the
prefix, proxies that remove it, and direct probes all work.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, request
from werkzeug.exceptions import NotFound


def install(app: Flask, prefix: str) -> None:
    """Serve the application below that prefix; an empty one changes nothing.

    A path that begins with two slashes is not found, because Flask would take it for the path after them.
    """
    app.before_request(_refuse_doubled_slashes)
    if prefix:
        app.wsgi_app = PrefixMiddleware(app.wsgi_app, prefix)  # type: ignore[method-assign]


def _refuse_doubled_slashes() -> None:
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise NotFound


class PrefixMiddleware:
    """WSGI middleware for an application below `prefix`, which starts with a slash and does not end with one."""

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = self._prefix, path or "/"
        return self._application(environ, start_response)
