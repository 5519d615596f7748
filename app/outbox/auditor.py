"""Fetches records of the annotations service, several at a time, and compares each with the local record."""

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
    FetchRecord,
    RemoteState,
    compare,
    expected_for,
    expected_page,
)

CONCURRENT_REQUESTS = 8
MAX_ROUNDS = 5
"""How often an item that keeps changing is compared."""

PAUSE_SECONDS = 0.2

Compared = tuple[ExpectedRemoteState, Difference]
_Records = Callable[[Sequence[ExpectedRemoteState]], list[Mapping[str, Any] | None]]


class RemoteAuditor:
    """One audit. `asked` counts the media items compared, `found` the records that the annotations service had."""

    def __init__(self, database: Database, fetch_record: FetchRecord) -> None:
        self._queries = Queries(database)
        self._fetch_record = fetch_record
        self.asked = 0
        self.found = 0

    def comparisons(self, chosen: ColumnElement[bool] | None = None) -> Iterator[Compared]:
        """Yield every media item that the annotations service should have a record of, with the difference.

        `chosen` is a further condition on Media. Raises RecordsNotReadable and Unavailable as FetchRecord does.
        """
        after = ""
        with self._fetching() as records:
            while True:
                page = self._queries.fetch(expected_page, after, chosen)
                if not page:
                    return
                after = page[-1].media_id
                yield from self._compare_stable(
                    [item for item in page if not (item.nothing_delivered or item.create_pending)], records
                )

    def compare_items(self, media_ids: Sequence[str]) -> list[Compared]:
        """Compare the media items with these ids, delivered or not; unknown ids are ignored."""
        with self._fetching() as records:
            return self._compare_stable(self.expected(media_ids), records)

    def expected(self, media_ids: Sequence[str]) -> list[ExpectedRemoteState]:
        """Return the records that the annotations service should have of these media items."""
        return self._queries.fetch(expected_for, media_ids)

    def _compare_stable(self, page: Sequence[ExpectedRemoteState], records: _Records) -> list[Compared]:
        """Compare items, again those that changed meanwhile: their record may be from before or after the change."""
        stable: list[Compared] = []
        remaining = list(page)
        for _ in range(MAX_ROUNDS):
            pairs = [(item, compare(item, record)) for item, record in zip(remaining, records(remaining), strict=True)]
            unlike = [item.media_id for item, difference in pairs if difference.state is not RemoteState.SAME]
            now = {item.media_id: item for item in self.expected(unlike)} if unlike else {}
            changed = {item.media_id for item in remaining if now.get(item.media_id, item) != item}
            stable += [pair for pair in pairs if pair[0].media_id not in changed]
            remaining = [now[media_id] for media_id in changed]
            if not remaining:
                break
            time.sleep(PAUSE_SECONDS)
        self.asked += len(page)
        return stable

    @contextmanager
    def _fetching(self) -> Iterator[_Records]:
        with ThreadPoolExecutor(CONCURRENT_REQUESTS, thread_name_prefix="remote-audit") as pool:

            def records(items: Sequence[ExpectedRemoteState]) -> list[Mapping[str, Any] | None]:
                found = list(pool.map(lambda item: self._fetch_record(item.media_id, item.user_id), items))
                self.found += sum(record is not None for record in found)
                return found

            yield records
