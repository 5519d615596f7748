"""What arrives at the reference annotations service, seen as it arrives: its request log, read again and again."""

from typing import Any

import requests

Entry = dict[str, Any]


class RequestLog:
    """Its log so far, of requests that it has answered, in the order of their arrival."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen: list[Entry] = []

    def new(self) -> list[Entry]:
        """The messages answered since the last call. Raises requests.RequestException where it does not answer."""
        last = self.seen[-1]["index"] if self.seen else 0
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{self._url}/_log", params={"after": last}, timeout=10)
            answer.raise_for_status()
        entries: list[Entry] = []
        for entry in answer.json():
            if entry["status"] is None:  # under way: this one and those behind it wait for the next call
                break
            entries.append(entry)
        self.seen += entries
        return [entry for entry in entries if entry["seq"] is not None]

    def applied(self, media_id: str) -> list[Entry]:
        """The messages of a media item that were accepted so far, in order."""
        return [entry for entry in self.seen if entry["applied"] and entry["mediaId"] == media_id]
