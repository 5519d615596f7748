"""Flask's own way with uploads. FOLDER in the environment says where files go."""

import os
from pathlib import Path

from flask import Flask, request

app = Flask(__name__)
FOLDER = Path(os.environ["FOLDER"])


@app.post("/upload")
def upload() -> dict[str, str]:
    """Save what was received."""
    request.files["file"].save(FOLDER / "upload-flask")
    return {"status": "stored"}
