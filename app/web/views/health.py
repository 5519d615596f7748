"""For supervisors and scrapers: alive, ready, and figures."""

from http import HTTPStatus

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from app.current import get_services
from app.database import ReadTransaction
from app.process.threads import ended_threads
from app.web.metrics.history import HistoryCollector
from app.web.metrics.house import HouseCollector
from app.web.metrics.outbox import OutboxCollector, UploadCollector
from app.web.metrics.process import process_figures
from app.web.metrics.runs import RunCollector
from app.web.problems import problem
from app.web.readiness import Readiness

blueprint = Blueprint("health", __name__)

EXTENSION = "detections-readiness"


def install(app: Flask) -> None:
    """Have the application know how to tell whether its services are ready."""
    with app.app_context():
        app.extensions[EXTENSION] = Readiness(get_services())


@blueprint.get("/healthz")
def alive() -> Response:
    """This process answers, and has every thread that it cannot do without."""
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
    """Database and folders are fit for uploads; 503 with every reason otherwise."""
    reasons = _readiness().troubles()
    if reasons:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "Not ready", "; ".join(reasons))
        response.headers["Retry-After"] = "5"
        return response
    sandbox = get_services().detector_sandbox()
    return jsonify(status="ready", detectorSandbox={"files": sandbox.files, "systemCalls": sandbox.seccomp})


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus figures, the same whichever process is asked: of the server's processes, and of the database."""
    process_figures().detector_sandbox(get_services().detector_sandbox())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HouseCollector(get_services(), _readiness()))
    stored = get_services().queries.fetch(_stored_metrics, registry)
    return Response(generate_latest(process_figures().registry()) + stored, content_type=CONTENT_TYPE_LATEST)


def _stored_metrics(session: ReadTransaction, registry: CollectorRegistry) -> bytes:
    """The metrics that the database keeps, with those of the registry."""
    registry.register(
        OutboxCollector(session, get_services().database.now, get_services().breaker, get_services().counts)
    )
    registry.register(UploadCollector(session, get_services().database.now))
    registry.register(RunCollector(session, get_services().database.now))
    registry.register(HistoryCollector(session, get_services().folders, get_services().database))
    return generate_latest(registry)


def _readiness() -> Readiness:
    found: Readiness = current_app.extensions[EXTENSION]
    return found
