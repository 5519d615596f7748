"""A WSGI application with a detector process, for a real server; it records each time that it is imported."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import click
from flask import Flask

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.results import FrameResult
from app.runs.detector_process import DetectorProcess, Job
from tests.paths import PHOTOS

PHOTO = PHOTOS / "astronaut.jpg"

with Path(os.environ["PROBE_IMPORTS"]).open("a") as imports:
    imports.write(f"{os.getpid()}\n")

detector_process = DetectorProcess(BUILT_IN_MODEL)
flask_app = Flask(__name__)


def answer() -> dict[str, Any]:
    """Return the detections of the photo, and the processes that took part."""
    results = list(detector_process.run(Job(PHOTO, "Image")))
    labels = [found.label for result in results if isinstance(result, FrameResult) for found in result.objects]
    return {"labels": labels, "server": os.getpid(), "detector": detector_process.pid}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer()).encode()]


@flask_app.cli.command("probe")
def probe() -> None:
    """The same as a command."""
    click.echo(json.dumps(answer()))
