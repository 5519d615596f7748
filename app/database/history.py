"""Which database this is, how far its history has come, and whether it was restored from an earlier copy.

Every message that is sent carries the epoch (`X-Outbox-Epoch`). A database that is restored from a copy goes on with
sequence numbers that the annotations service has seen before on other messages, so it must go on in a new epoch. What
tells is the marker of a media folder, which is not restored with it: `compare` holds one against the other. It serves
the start, and every later moment at which the database may have become another one.
Nothing here begins or commits a transaction.
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
class Stored:
    """What the database says of itself; `restored_at` is in seconds since 1970."""

    instance: str
    reached: Reached
    restored_at: float | None = None

    @property
    def marker(self) -> Marker:
        return Marker(self.instance, self.reached)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`foreign` are folders whose marker is missing (None) or another database's; `ahead` is the highest that a marker
    of this database says, where the database itself is behind that."""

    foreign: Mapping[Path, Marker | None]
    ahead: Reached | None


def compare(stored: Stored, markers: Mapping[Path, Marker | None]) -> Comparison:
    """Hold a database against the markers of its media folders, which were read before it was."""
    ours = [marker for marker in markers.values() if marker and marker.instance == stored.instance]
    highest = max((marker.reached for marker in ours), default=stored.reached)
    return Comparison(
        {folder: marker for folder, marker in markers.items() if marker not in ours},
        highest if highest > stored.reached else None,
    )


def get(session: Session) -> Stored | None:
    """The database's own row; None until the first start, or the first command that needs one, makes it."""
    row = session.execute(
        select(
            DatabaseInstance.instance_id,
            DatabaseInstance.epoch,
            DatabaseInstance.counter,
            DatabaseInstance.restored_at,
        )
    ).first()
    return None if row is None else Stored(row.instance_id, Reached(row.epoch, row.counter), row.restored_at)


def make(session: WriteTransaction) -> Stored:
    """The database's own row, made where there is none. Of several processes at once one makes it."""
    new = upsert(session, DatabaseInstance).values(id=_ROW, instance_id=str(uuid.uuid4()), epoch=1, counter=0)
    session.execute(new.on_conflict_do_nothing())
    made = get(session)
    assert made is not None
    return made


def advance(session: WriteTransaction) -> Stored | None:
    """Count on, because messages were committed; None where the database has no row of its own yet."""
    session.execute(
        update(DatabaseInstance)
        .values(counter=DatabaseInstance.counter + 1)
        .execution_options(synchronize_session=False)
    )
    return get(session)


def begin_epoch(session: WriteTransaction, now: ColumnElement[float], seen: Iterable[Reached]) -> Stored:
    """Go on in an epoch that is higher than the database's own and than every one in `seen`."""
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
    """The annotations service was sent all that it lacked: a restoration needs nobody's attention any more."""
    session.execute(update(DatabaseInstance).values(restored_at=null()).execution_options(synchronize_session=False))
