"""PostgreSQL databases for one test after the other: emptied and lent again, because making one takes far longer.

A database in which a test changed more than rows (a table, an index, a setting, what ANALYZE keeps) is dropped instead.
"""

import uuid

import psycopg
from sqlalchemy import make_url

# One value for all that must be as it was after the migrations. What a TRUNCATE leaves is in it; what it resets is not.
_SIGNATURE = """
SELECT md5(concat_ws(E'\\n',
  (SELECT string_agg(format('%s %s %s %s', c.relname, c.relkind, c.relpersistence, c.reloptions), ',' ORDER BY c.oid)
     FROM pg_class c WHERE c.oid >= 16384 AND c.relkind <> 't'),
  (SELECT string_agg(format('%s %s %s %s', a.attname, a.atttypid, a.attnotnull, a.atthasdef), ','
                     ORDER BY a.attrelid, a.attnum)
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' WHERE a.attrelid >= 16384),
  (SELECT string_agg(format('%s %s', conname, convalidated), ',' ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
  (SELECT string_agg(format('%s %s %s', indexrelid, indisvalid, indisready), ',' ORDER BY indexrelid)
     FROM pg_index WHERE indexrelid >= 16384),
  (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
  (SELECT count(*) FROM pg_proc WHERE oid >= 16384),
  (SELECT count(*) FROM pg_namespace WHERE oid >= 16384),
  (SELECT count(*) FROM pg_statistic WHERE starelid >= 16384),
  (SELECT count(*) FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
     WHERE s.setdatabase = 0 OR d.datname = current_database()),
  (SELECT version_num FROM alembic_version)
))
"""
_TABLES = """
SELECT oid::regclass::text FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Databases:
    """Copies of the database `template` on a server, whose address is psycopg's."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._empty: list[str] = []
        self._signatures: dict[str, str] = {}

    def take(self) -> str:
        """Return the name of an empty database, migrated."""
        return self._empty.pop() if self._empty else self._make()

    def give_back(self, name: str) -> None:
        """Take a database back from the test that had it."""
        try:
            with psycopg.connect(self._address(name), autocommit=True) as connection:
                connection.execute(_END_OTHERS)
                is_as_made = self._signature(connection) == self._signatures[name]
                if is_as_made:
                    _truncate(connection)
                    self._empty.append(name)
        except psycopg.Error:  # whatever the test has done to it
            is_as_made = False
        if not is_as_made:
            self._administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _make(self) -> str:
        name = f"detections_{uuid.uuid4().hex[:12]}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        with psycopg.connect(self._address(name), autocommit=True) as connection:
            self._signatures[name] = self._signature(connection)
        return name

    def _address(self, name: str) -> str:
        return make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement.encode())

    @staticmethod
    def _signature(connection: psycopg.Connection) -> str:
        row = connection.execute(_SIGNATURE).fetchone()
        assert row is not None
        return str(row[0])


def _truncate(connection: psycopg.Connection) -> None:
    tables = [row[0] for row in connection.execute(_TABLES)]
    counts = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables)
    if filled := [row[0] for row in connection.execute(counts.encode())]:
        connection.execute(f"TRUNCATE {', '.join(filled)} RESTART IDENTITY CASCADE".encode())
