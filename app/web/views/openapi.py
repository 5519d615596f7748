"""The API's own description, as OpenAPI 3.1."""

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
    """The OpenAPI document; its server is this one, below whatever path it is served at."""
    content = _content(request.script_root)
    return send_file(BytesIO(content), mimetype="application/json", etag=sha256(content).hexdigest()[:32])


@lru_cache(maxsize=4)
def _content(prefix: str) -> bytes:
    written = DOCUMENT.read_bytes()
    if not prefix:
        return written
    content = json.loads(written)
    content["servers"][0]["url"] = prefix
    return json.dumps(content, ensure_ascii=False, indent=2).encode()
