"""Checks whether a server could start: for `gunicorn --check-config`, and before a reload replaces the workers.

It loads the settings, keys, model and labels and queries the database; it creates or changes nothing.
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

TIMEOUT_SECONDS = 120.0
"""The timeout of a check in a separate process; a large model loads in some seconds."""
_FIT = "fit"
# The process must not write the server's metrics. Its output counts and not its exit status, because gunicorn may reap
# the process.
_SCRIPT = f"""
import os
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
import wsgi
from app.web.server.check import check
check()
print("{_FIT}")
"""


def check() -> None:
    """End this process with one line if a server could not start or its database is not ready."""
    with exit_on_error():
        settings = Settings.from_env()
        check_model(settings, always=True)
        with closing(open_database(settings.database)) as database:
            _check_schema(database)
            check_rows(database, settings.media_folders)


def why_not(folder: str) -> str | None:
    """Check the code in `folder` in a new process. Return the line that prevents a start, or None."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the check took longer than {TIMEOUT_SECONDS:g} seconds"
    if done.stdout.strip().endswith(_FIT):
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1].removeprefix("detections: ") if lines else "the check ended without output"


def _check_schema(database: Database) -> None:
    file = database.url.database
    if database.is_sqlite and file and not Path(file).exists():
        raise SettingsError(f"There is no database at {Path(file).absolute()}; `alembic upgrade head` creates it.")
    trouble = Queries(database).fetch(schema.mismatch)
    if trouble:
        raise Unavailable(f"{trouble[0].upper()}{trouble[1:]}.")
