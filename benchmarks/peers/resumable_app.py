"""The tus server `resumable-upload` behind Flask, as its documentation shows it. FOLDER says where files go."""

import os
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from resumable_upload import SQLiteStorage, TusServer

FOLDER = Path(os.environ["FOLDER"])
app = Flask(__name__)
server: Any = TusServer(
    storage=SQLiteStorage(db_path=str(FOLDER / "uploads.db"), upload_dir=str(FOLDER)), base_path="/uploads"
)


@app.route("/uploads", methods=["POST"])
@app.route("/uploads/<path:_upload>", methods=["HEAD", "PATCH"])
def tus(_upload: str = "") -> Response:
    """Hand the request over."""
    status, headers, body = server.handle_request(request.method, request.path, dict(request.headers), request.data)
    return Response(body, status, headers)


@app.post("/upload")
def ready() -> str:
    """What whoever starts the peers asks for."""
    return "stored"
