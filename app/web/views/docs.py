"""The API's documentation: Swagger UI, served from the files in its Python package.

Nothing is loaded from other hosts, and only these files may run scripts or styles on the page.
"""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, make_response, render_template_string, send_file
from werkzeug.exceptions import NotFound

from app.web import parameters

blueprint = Blueprint("docs", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

WEB_FOLDER = Path(__file__).parents[1]
SWAGGER_UI = Path(str(files("flask_swagger_ui") / "dist"))
ASSETS = {
    "docs.css": WEB_FOLDER,
    "docs.js": WEB_FOLDER,
    "favicon-32x32.png": SWAGGER_UI,
    "swagger-ui-bundle.js": SWAGGER_UI,
    "swagger-ui.css": SWAGGER_UI,
}
PAGE = (WEB_FOLDER / "docs.html").read_text(encoding="utf-8")
MAX_AGE_SECONDS = 3600

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data: blob:; media-src blob:;"  # icons in the style sheet; content of responses
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/docs", strict_slashes=False)
def page() -> Response:
    """Return the page that shows the OpenAPI document."""
    response = make_response(render_template_string(PAGE))
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a script, a style sheet or an image of the page."""
    if name not in ASSETS:
        raise NotFound
    return send_file(ASSETS[name] / name, max_age=MAX_AGE_SECONDS)
