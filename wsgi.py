"""Where gunicorn and `flask` find the application. A wrong setting ends the start with the one line that names it.

Some commands are for machines without the service's settings (`flask media upload` on a laptop). So where `flask`
only asks which commands there are, they are there without settings too, and each that needs the service says itself
what is wrong with them.
"""

import sys

from app import cli, commands_only, create_app
from app.errors import DetectionsError, StorageFailed

try:
    app = create_app()
except (DetectionsError, OSError) as error:
    if not cli.looks_for_a_command():
        sys.exit(f"detections: {error}")
    app = commands_only(error if isinstance(error, DetectionsError) else StorageFailed(str(error)))
