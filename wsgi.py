"""Where gunicorn and `flask` find the application. A wrong setting ends the start with the one line that names it.

Some commands are for machines without the service's settings, as `flask media upload` is for a laptop. So `flask` gets
the commands alone, and each of them that needs the service says itself what is wrong with its settings.
"""

from app import create_app, create_command_app
from app.cli import is_resolving_command
from app.detection.sandbox.kernel import hide_memory
from app.startup import exit_on_error

hide_memory()  # its environment has keys and passwords
with exit_on_error():
    app = create_command_app() if is_resolving_command() else create_app()
