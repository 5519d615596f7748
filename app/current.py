"""The services of the current Flask application, for views and commands."""

from flask import current_app

from app.services import Services
from app.settings import Settings

EXTENSION = "detections"


def get_services() -> Services:
    """Return the services of the current application; an application with commands only creates them at the first call.

    Creating them raises SettingsError if a setting is wrong, and DatabaseUnfit if there is no database.
    """
    extensions = current_app.extensions
    if EXTENSION not in extensions:
        made = Services(Settings.from_env())
        made.database.ensure_exists()
        made.database.health.is_logged = False
        extensions[EXTENSION] = made
    found: Services = extensions[EXTENSION]
    return found
