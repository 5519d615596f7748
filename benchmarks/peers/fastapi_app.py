"""FastAPI as its documentation shows it. FOLDER in the environment says where files go."""

import os
import shutil
import tempfile
from pathlib import Path

from fastapi import FastAPI, UploadFile

app = FastAPI()
FOLDER = Path(os.environ["FOLDER"])


@app.post("/upload")
def upload(file: UploadFile) -> dict[str, str]:
    """Copy what was received to its place."""
    with (FOLDER / "upload-fastapi").open("wb") as out:
        shutil.copyfileobj(file.file, out)
    return {"status": "stored"}


@app.post("/forget")
def forget(file: UploadFile) -> dict[str, str]:
    """What detection services commonly do: a temporary file, gone at the end."""
    with tempfile.NamedTemporaryFile(dir=FOLDER) as out:
        shutil.copyfileobj(file.file, out)
    return {"status": "forgotten"}
