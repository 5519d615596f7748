"""Secrets that every process on one database shares, and nobody else: made when first needed, kept in a table.

A key is asked for anew at each use, which is one row by its primary key: deleting the row is all that a rotation takes.
Nothing here begins or commits a transaction.
"""

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import SharedKey
from app.database.sql_functions import upsert

SECRET_BYTES = 32


def find(session: Session, purpose: str) -> str | None:
    """The key for that purpose, as hex digits; None where none was made yet."""
    return session.scalar(select(SharedKey.secret).where(SharedKey.purpose == purpose))


def make(session: WriteTransaction, purpose: str) -> str:
    """The key for that purpose, made if there is none. Of several processes at once one makes it; all get the same."""
    new = upsert(session, SharedKey).values(purpose=purpose, secret=secrets.token_hex(SECRET_BYTES))
    session.execute(new.on_conflict_do_nothing())
    return session.scalars(select(SharedKey.secret).where(SharedKey.purpose == purpose)).one()
