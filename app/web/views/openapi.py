"""The OpenAPI 3.1 description of the API."""

import json
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from flask import Blueprint, Response, request, send_file

from app.web import parameters

blueprint = Blueprint("openapi", __name__)
blueprint.before_request(parameters.ignore_impossible_dates)

DOCUMENT = Path(__file__).parents[1] / "openapi.json"


@blueprint.get("/openapi.json")
def document() -> Response:
    """Return the OpenAPI document with this service as its server, including the path prefix."""
    content = _content(request.script_root)
    return send_file(BytesIO(content), mimetype="application/json", etag=sha256(content).hexdigest()[:32])


@lru_cache(maxsize=4)
def _content(prefix: str) -> bytes:
    original = DOCUMENT.read_bytes()
    if not prefix:
        return original
    content = json.loads(original)
    content["servers"][0]["url"] = prefix
    return json.dumps(content, ensure_ascii=False, indent=2).encode()
