"""From the Flask application at hand to its services: the one way for views and commands."""

from flask import current_app

from app.bootstrap import Services
from app.errors import DetectionsError

EXTENSION = "detections"


def services() -> Services:
    """The services that the factory gave this application; raises what kept it from making them, if it has none."""
    found: Services | DetectionsError = current_app.extensions[EXTENSION]
    if isinstance(found, DetectionsError):
        raise found
    return found
