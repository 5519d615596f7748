"""The page at `/` and its files, served unchanged from the folder `static`.

There is no build step, and nothing comes from other hosts. The Content-Security-Policy enforces that: scripts and
styles injected by a file's name or a message's text do not run, and no data is sent elsewhere.
"""

from pathlib import Path

from flask import Blueprint, Response, render_template_string, request, send_from_directory
from werkzeug.exceptions import NotFound

from app.web import parameters

blueprint = Blueprint("page", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

FOLDER = Path(__file__).parents[1] / "static"
PAGE = (Path(__file__).parents[1] / "page.html").read_text(encoding="utf-8")

# Explicit, because the system's type for .js varies and browsers refuse modules with another type.
CONTENT_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

DIRECTIVES = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "media-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
)
POLICY = "; ".join(DIRECTIVES)


@blueprint.get("/")
def document() -> Response:
    """Return the page. Its modules fetch everything from the API with the token that the user enters."""
    response = Response(render_template_string(PAGE), mimetype="text/html")
    response.add_etag()
    response.make_conditional(request)
    return _set_headers(response)


@blueprint.get("/static/<path:name>")
def asset(name: str) -> Response:
    """Return a module, a style sheet or an image of the page. Raises NotFound for any other file."""
    content_type = CONTENT_TYPES.get(Path(name).suffix)
    if content_type is None:
        raise NotFound(f"The page has no file {name[:80]!r}.")
    return _set_headers(send_from_directory(FOLDER, name, mimetype=content_type, conditional=True, max_age=None))


def _set_headers(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-cache"  # names do not change with content, so browsers revalidate
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
