"""Asks the annotations service for its records, several at once, and holds each against ours as it then is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement

from app.database import Database, Queries
from app.outbox.remote_audit import (
    Difference,
    ExpectedRemoteState,
    Find,
    RemoteState,
    compare,
    expected_of,
    page_of_expected,
)

AT_ONCE = 8
ATTEMPTS = 5
PAUSE_SECONDS = 0.2

Compared = tuple[ExpectedRemoteState, Difference]
_Records = Callable[[Sequence[ExpectedRemoteState]], list[Mapping[str, Any] | None]]


class RemoteAuditor:
    """One comparison. `asked` counts the media items that were asked for, `found` those whose record was there."""

    def __init__(self, database: Database, find: Find) -> None:
        self._queries = Queries(database)
        self._find = find
        self.asked = 0
        self.found = 0

    def comparisons(self, chosen: ColumnElement[bool] | None = None) -> Iterator[Compared]:
        """Each media item of which anything should be there, with what is.

        Raises RecordsNotReadable and Unavailable as `find` does.
        """
        after = ""
        with self._asking() as records:
            while True:
                page = self._queries.fetch(page_of_expected, after, chosen)
                if not page:
                    return
                after = page[-1].media_id
                yield from self._settled([one for one in page if not (one.never_told or one.create_waits)], records)

    def compare_items(self, media_ids: Sequence[str]) -> list[Compared]:
        """The same of media items by name, whatever they have been told; unknown ones are left out."""
        with self._asking() as records:
            return self._settled(self.expected(media_ids), records)

    def expected(self, media_ids: Sequence[str]) -> list[ExpectedRemoteState]:
        """What the other side should have of these."""
        return self._queries.fetch(expected_of, media_ids)

    def _settled(self, page: Sequence[ExpectedRemoteState], records: _Records) -> list[Compared]:
        """An item that went on while it was asked for is asked for again: what was found may be of before or after."""
        settled: list[Compared] = []
        left = list(page)
        for _ in range(ATTEMPTS):
            pairs = [(one, compare(one, record)) for one, record in zip(left, records(left), strict=True)]
            unlike = [one.media_id for one, difference in pairs if difference.state is not RemoteState.SAME]
            now = {one.media_id: one for one in self.expected(unlike)} if unlike else {}
            moved = {one.media_id for one in left if now.get(one.media_id, one) != one}
            settled += [pair for pair in pairs if pair[0].media_id not in moved]
            left = [now[media_id] for media_id in moved]
            if not left:
                break
            time.sleep(PAUSE_SECONDS)
        self.asked += len(page)
        return settled

    @contextmanager
    def _asking(self) -> Iterator[_Records]:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="remote-audit") as pool:

            def records(asked: Sequence[ExpectedRemoteState]) -> list[Mapping[str, Any] | None]:
                found = list(pool.map(lambda one: self._find(one.media_id, one.user_id), asked))
                self.found += sum(record is not None for record in found)
                return found

            yield records
