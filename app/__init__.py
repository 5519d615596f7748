"""The detections service: a media intake that cannot forget.

This module is wiring only: settings in, a Flask application out.
"""

from flask import Flask

from app import cli, logs
from app.bootstrap import Services
from app.current import EXTENSION
from app.settings import LogSettings, Settings
from app.web import (
    auth,
    cors,
    detect,
    docs,
    health,
    links,
    media,
    method_override,
    openapi,
    outbox,
    page,
    problems,
    process_figures,
    security_headers,
    tracing,
    uploads,
    url_prefix,
)

PARTS = (detect, media, uploads, links, outbox, health, openapi, docs, page)


def create_app(settings: Settings | None = None) -> Flask:
    """The application; settings come from the environment unless given. Raises SettingsError if one is wrong.

    Its background work begins with `app.extensions["detections"].start()`, in the process that serves.
    """
    settings = settings or Settings.from_env()
    logs.configure(settings.logs)
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = Services(settings)
    app.url_map.merge_slashes = False  # else a doubled slash is redirected to an address that the Host header names
    app.json.sort_keys = False  # type: ignore[attr-defined]
    tracing.install(app)
    security_headers.install(app)
    process_figures.install(app, settings.shared_figures_dir)
    health.install(app)
    problems.install(app)
    auth.install(app, settings.tokens)
    cors.install(app, settings)
    for part in PARTS:
        app.register_blueprint(part.blueprint)
    method_override.install(app)
    url_prefix.install(app, settings.url_prefix)
    _add_commands(app)
    return app


def create_command_app() -> Flask:
    """The commands alone, for `flask` to find them: the services are made when one of them asks.

    So those that need no service need no setting of it either, but those of its logs. Raises SettingsError if one of
    these is wrong.
    """
    logs.configure(LogSettings.from_env())
    app = Flask(__name__, static_folder=None)
    _add_commands(app)
    return app


def _add_commands(app: Flask) -> None:
    for command in cli.COMMANDS:
        app.cli.add_command(command)
