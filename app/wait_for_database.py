"""`python -m app.wait_for_database`: returns once the database of DATABASE_URL can be reached.

A machine boots, and the database comes later. Waiting here says so at once and every minute; a start that failed each
time would use up the starts that a supervisor allows. An SQLite database is a file, and not waited for.
"""

import sys
import time
from collections.abc import Callable

from app.database import Database
from app.settings import DatabaseSettings
from app.startup import exit_on_error

RETRY_SECONDS = 2.0
REPORT_SECONDS = 60.0


def wait(
    database: Database,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Try every RETRY_SECONDS; `say` is given a line at once where it cannot be reached, and every REPORT_SECONDS."""
    said: float | None = None
    while reason := database.unreachable_reason():
        if said is None or monotonic() - said >= REPORT_SECONDS:
            said = monotonic()
            say(f"waiting for the database of DATABASE_URL: {' '.join(reason.split())}")
        sleep(RETRY_SECONDS)
    if said is not None:
        say("the database of DATABASE_URL can be reached")


def main() -> None:
    """Wait with the settings of the environment."""
    with exit_on_error():
        settings = DatabaseSettings.from_env()
        database = Database(settings.url, pooler=settings.pooler)
    try:
        wait(database, lambda text: _say(f"detections: {text}"))
    finally:
        database.close()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
