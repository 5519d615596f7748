"""For supervisors and scrapers: alive, ready, and figures."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app import schema
from app.current import services
from app.errors import DetectionsError
from app.storage import INCOMING
from app.web.figures import OutboxCollector
from app.web.problems import problem
from app.web.process_figures import process_figures
from app.web.run_figures import RunCollector

blueprint = Blueprint("health", __name__)

NEARLY_FULL_BYTES = 256 << 20


@blueprint.get("/healthz")
def alive() -> Response:
    """This process answers."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
def ready() -> Response:
    """Database and folders are fit for uploads; 503 with every reason otherwise."""
    reasons = [*_database_troubles(), *_folder_troubles()]
    if reasons:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Not ready", "; ".join(reasons))
        response.headers["Retry-After"] = "5"
        return response
    return jsonify(status="ready")


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus figures, the same whichever process is asked: of the server's processes, and of the database."""
    registry = CollectorRegistry(auto_describe=False)
    with services().database.reading() as session:
        registry.register(OutboxCollector(session, services().database.now, services().gate))
        registry.register(RunCollector(session))
        stored = generate_latest(registry)
    return Response(generate_latest(process_figures().registry()) + stored, content_type=CONTENT_TYPE_LATEST)


def _database_troubles() -> list[str]:
    try:
        with services().database.reading() as session:
            trouble = schema.trouble(session)
    except (SQLAlchemyError, DetectionsError) as error:
        return [f"the database does not answer: {type(error).__name__}"]
    return [trouble] if trouble else []


def _folder_troubles() -> list[str]:
    storage, database = services().storage, services().database
    troubles = []
    for folder in storage.folders:
        if not all(os.access(path, os.W_OK | os.X_OK) for path in (folder, folder / INCOMING)):
            troubles.append(f"the folder {folder.name} is not writable")
        else:
            troubles += _room_trouble(f"the folder {folder.name}", partial(storage.room, folder))
    if database.is_sqlite and database.url.database:
        folder = Path(database.url.database).parent
        troubles += _room_trouble("the database's folder", lambda: shutil.disk_usage(folder).free)
    return troubles


def _room_trouble(name: str, room: Callable[[], int]) -> list[str]:
    try:
        left = room()
    except (OSError, DetectionsError) as error:
        return [f"{name} cannot be looked at: {type(error).__name__}"]
    if left >= NEARLY_FULL_BYTES:
        return []
    return [f"{name} has {max(0, left) >> 20} MiB left, less than {NEARLY_FULL_BYTES >> 20} MiB"]
