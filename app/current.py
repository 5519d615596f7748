"""From the Flask application at hand to its services: the one way for views and commands."""

from flask import current_app

from app.bootstrap import Services

EXTENSION = "detections"


def services() -> Services:
    """The services that the factory gave this application."""
    found: Services = current_app.extensions[EXTENSION]
    return found
