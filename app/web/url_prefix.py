"""Where the service's paths lie: below the path at which a proxy serves it, as URL_PREFIX says.

Every address that the service gives out (the page and its files, `Location`, signed links, the description's server)
is made by Flask from WSGI's SCRIPT_NAME, so this is set, and taken off the path where the proxy passed it on. Where the
proxy has stripped it, the path is right as it is; so both kinds of proxy, and probes that come directly, are served.
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, request
from werkzeug.exceptions import NotFound


def install(app: Flask, prefix: str) -> None:
    """Serve the application below that path, or where it is for an empty one.

    What begins with two slashes is not found: Flask would take it for the path behind them.
    """
    app.before_request(_refuse_doubled_slashes)
    if prefix:
        app.wsgi_app = BelowPrefix(app.wsgi_app, prefix)  # type: ignore[method-assign]


def _refuse_doubled_slashes() -> None:
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise NotFound


class BelowPrefix:
    """A WSGI application that lies below `prefix`, which begins with a slash and does not end with one."""

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = self._prefix, path or "/"
        return self._application(environ, start_response)
