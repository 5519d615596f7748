"""The API's own description, as OpenAPI 3.1."""

from pathlib import Path

from flask import Blueprint, Response, send_file

from app.web import parameters

blueprint = Blueprint("openapi", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

DOCUMENT = Path(__file__).with_name("openapi.json")


@blueprint.get("/openapi.json")
def document() -> Response:
    """The OpenAPI document."""
    return send_file(DOCUMENT, mimetype="application/json")
