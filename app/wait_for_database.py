"""`python -m app.wait_for_database`: waits until the database of DATABASE_URL can be reached.

At boot the database may come up later than the service. Failing starts would use up those that a supervisor allows.
There is no wait for an SQLite database, which is a file.
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
    """Try to connect every RETRY_SECONDS; pass a line to `say` at the first failure and every REPORT_SECONDS."""
    said: float | None = None
    while reason := database.unreachable_reason():
        if said is None or monotonic() - said >= REPORT_SECONDS:
            said = monotonic()
            say(f"waiting for the database of DATABASE_URL: {' '.join(reason.split())}")
        sleep(RETRY_SECONDS)
    if said is not None:
        say("the database of DATABASE_URL can be reached")


def main() -> None:
    """Wait for the database of the environment."""
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
