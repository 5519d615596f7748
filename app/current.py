"""From the Flask application at hand to its services: the one way for views and commands."""

from flask import current_app

from app.bootstrap import Services
from app.settings import Settings

EXTENSION = "detections"


def services() -> Services:
    """The services that the factory gave this application.

    One that only holds commands has none before the first of them asks; raises SettingsError if a setting is wrong.
    """
    if EXTENSION not in current_app.extensions:
        current_app.extensions[EXTENSION] = Services(Settings.from_env())
    found: Services = current_app.extensions[EXTENSION]
    return found
