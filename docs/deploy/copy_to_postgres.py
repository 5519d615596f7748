"""Copy a SQLite database of the service into an empty, migrated PostgreSQL database: every table, row by row.

    python -m docs.deploy.copy_to_postgres sqlite:///var/detections.db postgresql+psycopg://user:password@host/database

The service must be stopped, and both databases must be at the same migration. The copy is one transaction: an error
leaves the target empty. Messages keep their idempotency keys, so the annotations service recognises those it has.
"""

import sys

from sqlalchemy import Connection, Table, create_engine, func, insert, select, text

from app.database.models import Media

TABLES = Media.metadata.sorted_tables
MIGRATION = text("SELECT version_num FROM alembic_version")


def copy(old: Connection, new: Connection, table: Table) -> int:
    """Copy one table and set its identity sequence to the last number; return the number of rows."""
    copied = 0
    rows = old.execution_options(yield_per=1000).execute(select(table)).mappings()
    for some in rows.partitions():
        new.execute(insert(table), [dict(row) for row in some])
        copied += len(some)
    for column in table.columns:
        if column.identity is not None and copied:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            new.execute(select(func.setval(sequence, select(func.max(column)).scalar_subquery())))
    return copied


def main(source: str, target: str) -> None:
    """Copy all tables from `source` to `target` (database URLs), or exit with one line that says why not."""
    with create_engine(source).connect() as old, create_engine(target).begin() as new:
        stands, wanted = (connection.execute(MIGRATION).scalar() for connection in (old, new))
        if stands != wanted:
            sys.exit(
                f"The source stands at migration {stands}, the target at {wanted}: run `alembic upgrade head` on both."
            )
        if any(new.execute(select(func.count()).select_from(table)).scalar() for table in TABLES):
            sys.exit("The target is not empty.")
        for table in TABLES:
            sys.stderr.write(f"{table.name}: {copy(old, new, table)} rows\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
