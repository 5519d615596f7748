"""Where a benchmark's databases live: a temporary folder, and a PostgreSQL server from the wheel the tests use."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import make_url

from tests.paths import ROOT
from tests.servers.postgres import address, running_postgres


@dataclass
class Places:
    """Makes empty, migrated databases of both kinds."""

    folder: Path
    postgres: str
    _made: int = 0

    def url(self, kind: str) -> str:
        """A new database; `kind` is sqlite or postgresql."""
        self._made += 1
        url = self._postgres() if kind == "postgresql" else f"sqlite:///{self.folder / f'{self._made}.db'}"
        config = Config(ROOT / "alembic.ini")
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        command.upgrade(config, "head")
        return url

    def _postgres(self) -> str:
        name = f"benchmark_{self._made}"
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return (
            make_url(self.postgres)
            .set(drivername="postgresql+psycopg", database=name)
            .render_as_string(hide_password=False)
        )


@contextmanager
def places() -> Iterator[Places]:
    """Everything made is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="detections-benchmark-"))
    try:
        with running_postgres() as server:
            yield Places(folder, address(server, driver="postgresql"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
