"""The detections service: stores media, detects objects in it and reports both through a transactional outbox.

This module only wires the Flask application.
"""

from flask import Flask

from app import cli
from app.current import EXTENSION
from app.process import logs
from app.services import Services
from app.settings import LogSettings, Settings
from app.web import cors, problems, security_headers, tracing, url_prefix
from app.web.auth import authentication
from app.web.metrics import process
from app.web.upload import method_override
from app.web.views import detect, docs, health, links, media, openapi, outbox, page, uploads

PARTS = (detect, media, uploads, links, outbox, health, openapi, docs, page)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application; `settings` default to those of the environment. Raises SettingsError.

    The server process starts the background work with `app.extensions["detections"].start()`.
    """
    settings = settings or Settings.from_env()
    logs.configure(settings.logs)
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = Services(settings)
    app.url_map.merge_slashes = False  # otherwise a double slash redirects to the host of the Host header
    app.json.sort_keys = False  # type: ignore[attr-defined]
    tracing.install(app)
    security_headers.install(app)
    process.install(app, settings.shared_metrics_dir)
    health.install(app)
    problems.install(app)
    authentication.install(app, settings.tokens)
    cors.install(app, settings)
    for part in PARTS:
        app.register_blueprint(part.blueprint)
    method_override.install(app)
    url_prefix.install(app, settings.url_prefix)
    _add_commands(app)
    return app


def create_command_app() -> Flask:
    """Return an application with the commands only; a command creates the services when it needs them.

    So a command without services needs no settings but those of the logs. Raises SettingsError if one of these is
    wrong.
    """
    logs.configure(LogSettings.from_env())
    app = Flask(__name__, static_folder=None)
    _add_commands(app)
    return app


def _add_commands(app: Flask) -> None:
    for command in cli.COMMANDS:
        app.cli.add_command(command)
