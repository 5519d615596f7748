"""The database's identity and the position of its history; detects that it was restored from an earlier copy.

Every message carries the database's epoch (`X-Outbox-Epoch`). A restored database would use sequence numbers again that
the annotations service has seen on other messages, so it continues in a new epoch. The marker in each media folder is
not restored with the database: `compare` finds a database that is behind it, at the start and whenever the database may
have been replaced. Nothing here begins or commits a transaction.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, null, select, update
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import DatabaseInstance
from app.database.sql_functions import upsert
from app.storage.folder_marker import Marker, Reached

_ROW = 1


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """The database's own row; `restored_at` is in seconds since 1970."""

    instance: str
    reached: Reached
    restored_at: float | None = None

    @property
    def marker(self) -> Marker:
        """The marker that media folders get."""
        return Marker(self.instance, self.reached)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of a database with its folders' markers.

    `foreign` are folders whose marker is missing (None) or belongs to another database. `ahead` is the highest position
    in a marker of this database if the database itself is behind it.
    """

    foreign: Mapping[Path, Marker | None]
    ahead: Reached | None


def compare(stored: DatabaseIdentity, markers: Mapping[Path, Marker | None]) -> Comparison:
    """Compare a database with the markers of its media folders, which must be read before its row."""
    ours = [marker for marker in markers.values() if marker and marker.instance == stored.instance]
    highest = max((marker.reached for marker in ours), default=stored.reached)
    return Comparison(
        {folder: marker for folder, marker in markers.items() if marker not in ours},
        highest if highest > stored.reached else None,
    )


def get(session: Session) -> DatabaseIdentity | None:
    """Return the database's own row; None before the first start or command that makes it."""
    row = session.execute(
        select(
            DatabaseInstance.instance_id,
            DatabaseInstance.epoch,
            DatabaseInstance.counter,
            DatabaseInstance.restored_at,
        )
    ).first()
    return None if row is None else DatabaseIdentity(row.instance_id, Reached(row.epoch, row.counter), row.restored_at)


def make(session: WriteTransaction) -> DatabaseIdentity:
    """Return the database's own row, inserted if it is missing; concurrent processes get the same row."""
    new = upsert(session, DatabaseInstance).values(id=_ROW, instance_id=str(uuid.uuid4()), epoch=1, counter=0)
    session.execute(new.on_conflict_do_nothing())
    made = get(session)
    assert made is not None
    return made


def advance(session: WriteTransaction) -> DatabaseIdentity | None:
    """Increment the counter, because messages were committed; return the row, None if there is none yet."""
    session.execute(
        update(DatabaseInstance)
        .values(counter=DatabaseInstance.counter + 1)
        .execution_options(synchronize_session=False)
    )
    return get(session)


def begin_epoch(session: WriteTransaction, now: ColumnElement[float], seen: Iterable[Reached]) -> DatabaseIdentity:
    """Begin an epoch above the database's own and all in `seen`, and set `restored_at`; return the row."""
    session.execute(select(DatabaseInstance.id).with_for_update()).all()
    stored = make(session)
    highest = max([stored.reached, *seen])
    session.execute(
        update(DatabaseInstance)
        .values(epoch=highest.epoch + 1, counter=highest.counter + 1, restored_at=now)
        .execution_options(synchronize_session=False)
    )
    begun = get(session)
    assert begun is not None
    return begun


def note_reconciled(session: WriteTransaction) -> None:
    """Clear `restored_at`, because everything that the annotations service lacked was resent."""
    session.execute(update(DatabaseInstance).values(restored_at=null()).execution_options(synchronize_session=False))
