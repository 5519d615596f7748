"""The API's description for people to read and try: Swagger UI, from the files that its package carries.

Nothing is asked of any other host, and nothing but these files may run or style the page.
"""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, make_response, render_template_string, send_file
from werkzeug.exceptions import NotFound

from app.web import parameters

blueprint = Blueprint("docs", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

OURS = Path(__file__).parents[1]
SWAGGER_UI = Path(str(files("flask_swagger_ui") / "dist"))
ASSETS = {
    "docs.css": OURS,
    "docs.js": OURS,
    "favicon-32x32.png": SWAGGER_UI,
    "swagger-ui-bundle.js": SWAGGER_UI,
    "swagger-ui.css": SWAGGER_UI,
}
PAGE = (OURS / "docs.html").read_text(encoding="utf-8")
KEPT_SECONDS = 3600

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data: blob:; media-src blob:;"  # icons within the style sheet; what an answer brought
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/docs", strict_slashes=False)
def page() -> Response:
    """The page that shows the OpenAPI document."""
    response = make_response(render_template_string(PAGE))
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    return response


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """A script, a style sheet or a picture of that page."""
    if name not in ASSETS:
        raise NotFound
    return send_file(ASSETS[name] / name, max_age=KEPT_SECONDS)
