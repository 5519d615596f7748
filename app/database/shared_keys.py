"""Secrets shared by the processes on one database, created when first needed and stored in a table.

A key is read at each use, so deleting its row rotates it. Nothing here begins or commits a transaction.
"""

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import SharedKey
from app.database.sql_functions import upsert

SECRET_BYTES = 32


def find(session: Session, purpose: str) -> str | None:
    """Return the key for a purpose as hex digits; None if none was created yet."""
    return session.scalar(select(SharedKey.secret).where(SharedKey.purpose == purpose))


def make(session: WriteTransaction, purpose: str) -> str:
    """Return the key for a purpose, created if it is missing; concurrent processes get the same key."""
    new = upsert(session, SharedKey).values(purpose=purpose, secret=secrets.token_hex(SECRET_BYTES))
    session.execute(new.on_conflict_do_nothing())
    return session.scalars(select(SharedKey.secret).where(SharedKey.purpose == purpose)).one()
