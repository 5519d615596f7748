"""Liveness, readiness and metrics."""

from http import HTTPStatus

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from app.current import get_services
from app.database import ReadTransaction
from app.process.threads import ended_threads
from app.web.metrics.database import DatabaseCollector
from app.web.metrics.outbox import OutboxCollector, UploadCollector
from app.web.metrics.process import process_metrics
from app.web.metrics.runs import RunCollector
from app.web.metrics.service import ServiceCollector
from app.web.problems import problem
from app.web.readiness import Readiness

blueprint = Blueprint("health", __name__)

EXTENSION = "detections-readiness"


def install(app: Flask) -> None:
    """Add the readiness checks to the application."""
    with app.app_context():
        app.extensions[EXTENSION] = Readiness(get_services())


@blueprint.get("/healthz")
def alive() -> Response:
    """Return 200 if this process responds and all its required threads run."""
    if ended_threads:
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "unavailable",
            "Not alive",
            f"threads have ended: {', '.join(ended_threads)}",
        )
    return jsonify(status="alive")


@blueprint.get("/readyz")
def ready() -> Response:
    """Return 200 if the database and the folders are ready for uploads, else 503 with every reason."""
    reasons = _readiness().reasons()
    if reasons:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Not ready", "; ".join(reasons))
        response.headers["Retry-After"] = "5"
        return response
    sandbox = get_services().detector_sandbox()
    return jsonify(status="ready", detectorSandbox={"files": sandbox.files, "systemCalls": sandbox.seccomp})


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return Prometheus metrics of all server processes and of the database; the same from every process."""
    process_metrics().detector_sandbox(get_services().detector_sandbox())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(get_services(), _readiness()))
    stored = get_services().queries.fetch(_stored_metrics, registry)
    return Response(generate_latest(process_metrics().registry()) + stored, content_type=CONTENT_TYPE_LATEST)


def _stored_metrics(session: ReadTransaction, registry: CollectorRegistry) -> bytes:
    """Return the metrics from the database and those of the registry."""
    registry.register(
        OutboxCollector(session, get_services().database.now, get_services().breaker, get_services().counts)
    )
    registry.register(UploadCollector(session, get_services().database.now))
    registry.register(RunCollector(session, get_services().database.now))
    registry.register(DatabaseCollector(session, get_services().folders, get_services().database))
    return generate_latest(registry)


def _readiness() -> Readiness:
    readiness: Readiness = current_app.extensions[EXTENSION]
    return readiness
