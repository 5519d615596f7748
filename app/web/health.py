"""For supervisors and scrapers: alive, ready, and figures."""

import os
from http import HTTPStatus

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app.current import services
from app.db import schema_revision
from app.errors import DetectionsError
from app.web.figures import OutboxCollector
from app.web.problems import problem

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
    """Prometheus figures. What the database knows is asked of it now, so it is right across processes."""
    registry = CollectorRegistry(auto_describe=False)
    with services().database.reading() as session:
        registry.register(OutboxCollector(session, services().database.now, services().gate))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _database_troubles() -> list[str]:
    try:
        with services().database.reading() as session:
            revision = schema_revision(session)
    except (SQLAlchemyError, DetectionsError) as error:
        return [f"the database does not answer: {type(error).__name__}"]
    return [] if revision else ["the database has not been migrated: run `alembic upgrade head`"]


def _folder_troubles() -> list[str]:
    troubles = []
    for folder in services().storage.folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            troubles.append(f"the folder {folder.name} is not writable")
        elif services().storage.room(folder) < NEARLY_FULL_BYTES:
            troubles.append(f"the folder {folder.name} has less than {NEARLY_FULL_BYTES >> 20} MiB left")
    return troubles
