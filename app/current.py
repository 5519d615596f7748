"""From the Flask application at hand to its services: the one way for views and commands."""

from flask import current_app

from app.services import Services
from app.settings import Settings

EXTENSION = "detections"


def get_services() -> Services:
    """The services that the factory gave this application.

    One that only holds commands has none before the first of them asks; raises SettingsError if a setting is wrong, and
    DatabaseUnfit where there is no database.
    """
    extensions = current_app.extensions
    if EXTENSION not in extensions:
        made = Services(Settings.from_env())
        made.database.ensure_exists()
        made.database.health.is_logged = False
        extensions[EXTENSION] = made
    found: Services = extensions[EXTENSION]
    return found
