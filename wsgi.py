"""Where gunicorn and `flask` find the application. A wrong setting ends the start with the one line that names it."""

import sys

from app import create_app
from app.errors import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"detections: {error}")
