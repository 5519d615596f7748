"""From the Flask application at hand to its services: the one way for views and commands."""

from flask import current_app

from app.bootstrap import Services
from app.settings import Settings

EXTENSION = "detections"


def services() -> Services:
    """The services that the factory gave this application.

    One that only holds commands has none before the first of them asks; raises SettingsError if a setting is wrong.
    """
    extensions = current_app.extensions
    if EXTENSION not in extensions:
        extensions[EXTENSION] = Services(Settings.from_env())
    found: Services = extensions[EXTENSION]
    return found
