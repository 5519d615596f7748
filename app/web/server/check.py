"""Whether a server could start: what `gunicorn --check-config` asks, and a reload before it lets the old workers go.

Settings, keys, model and labels are loaded and the database is asked; nothing is created or changed.
"""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from app.database import Database, Queries, schema
from app.errors import SettingsError, Unavailable
from app.runs.model_check import check_model
from app.services import open_database
from app.settings import Settings
from app.startup import exit_on_error
from app.storage.relocation import check_rows

SECONDS = 120.0
"""How long a check may take in a process of its own; a large model loads in some seconds."""
_FIT = "fit"
# Its metrics are not the server's. Whoever reaps this process's children may take the exit status: what counts is what
# the process says.
_SCRIPT = f"""
import os
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
import wsgi
from app.web.server.check import check
check()
print("{_FIT}")
"""


def check() -> None:
    """End this process with one line where a server could not start, or would not be ready for its database."""
    with exit_on_error():
        settings = Settings.from_env()
        check_model(settings, always=True)
        with closing(open_database(settings.database)) as database:
            _check_schema(database)
            check_rows(database, settings.media_folders)


def why_not(folder: str) -> str | None:
    """The line with which a server of the code that lies in `folder`, in a new process, could not start; None where it
    could."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the check took longer than {SECONDS:g} seconds"
    if done.stdout.strip().endswith(_FIT):
        return None
    said = done.stderr.strip().splitlines()
    return said[-1].removeprefix("detections: ") if said else "the check ended without a word"


def _check_schema(database: Database) -> None:
    file = database.url.database
    if database.is_sqlite and file and not Path(file).exists():
        raise SettingsError(f"There is no database at {Path(file).absolute()}; `alembic upgrade head` makes it.")
    trouble = Queries(database).fetch(schema.mismatch)
    if trouble:
        raise Unavailable(f"{trouble[0].upper()}{trouble[1:]}.")
