"""The page at `/`: one document that says where its files are, and these, served as they lie in the folder `static`.

Nothing of it is built and nothing comes from another host. The Content-Security-Policy says so to the browser: a
script or a style that somebody brings in by a file's name or a message's text is not run, and nothing leaves for
elsewhere.
"""

from pathlib import Path

from flask import Blueprint, Response, render_template_string, request, send_from_directory
from werkzeug.exceptions import NotFound

from app.web import parameters

blueprint = Blueprint("page", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

FOLDER = Path(__file__).parents[1] / "static"
PAGE = (Path(__file__).parents[1] / "page.html").read_text(encoding="utf-8")

# By name, because what a machine's own table says of .js differs, and a browser runs no module of another type.
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
    """The page; what it shows is asked of the API by its modules, with the token that its user pastes."""
    response = Response(render_template_string(PAGE), mimetype="text/html")
    response.add_etag()
    response.make_conditional(request)
    return _protected(response)


@blueprint.get("/static/<path:name>")
def asset(name: str) -> Response:
    """A module, a style or a picture of the page. Raises NotFound for any other file."""
    content_type = CONTENT_TYPES.get(Path(name).suffix)
    if content_type is None:
        raise NotFound(f"The page has no file {name[:80]!r}.")
    return _protected(send_from_directory(FOLDER, name, mimetype=content_type, conditional=True, max_age=None))


def _protected(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-cache"  # no name changes with its content, so each use asks; mostly a 304
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
