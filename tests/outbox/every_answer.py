"""Every kind of answer to the first request of a message, for the campaign.

The same message, sent again, is accepted. An answer that says "accepted" comes only after the message was applied; all
others come with and without that.
"""

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.outbox.other_side import Answered, Fate

_NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)  # by the clock of the answer, which is another one than ours
_REFUSALS = (400, 401, 403, 408, 413, 415, 418, 422, 425, 429)
_TROUBLES = (500, 502, 504, 507, 599)
_UNFIT = (503, 301, 302, 307, 308)

_LATER = {
    "a number": {"Retry-After": "1"},
    "a date": {
        "Retry-After": format_datetime(_NOW + timedelta(seconds=2), usegmt=True),
        "Date": format_datetime(_NOW, usegmt=True),
    },
    "nonsense": {"Retry-After": "soon"},
}

_ACCEPTED = (
    Answered(200, b'{"id": "x"}'),
    Answered(202, b"{}"),
    Answered(204),
    Answered(raw=b"HTTP/1.0 200 OK\r\n\r\n{}", status=200),
    Answered(raw=b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", status=204),
    Answered(200, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
    Answered(
        raw=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status=200
    ),
    Answered(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", status=200),
)

_ILL = (
    None,
    Answered(raw=b"", status=0),
    Answered(raw=b"HTTP/1.1 2", status=0),
    Answered(raw=b"HTTP/1.1 200 OK\r\nContent-Le", status=0),
    Answered(raw=b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\nhalf", status=0),
    Answered(raw=b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nhalf", status=0),
    Answered(raw=b"HTTP/1.1 500 No\r\n\r\n" + bytes(1 << 20), status=0),
    Answered(200, b"<!DOCTYPE html><title>Sign in</title>", media_type="text/html"),
)


def _fates() -> list[Fate]:
    answers = [Answered(code, b'{"title": "not now"}') for code in (409, *_REFUSALS, *_TROUBLES, *_UNFIT)]
    answers += [Answered(code, b"{}", headers) for code in (403, 422, 429, 500, 503) for headers in _LATER.values()]
    bad = [Fate(applied, answer) for answer in (*answers, *_ILL) for applied in (False, True)]
    good = [Fate(applied=True, answer=answer) for answer in _ACCEPTED]
    # Those that say "accepted" stand between the others: a circuit that never closes would try one kind only.
    return [one for at, fate in enumerate(bad) for one in (fate, good[at % len(good)])]


FATES = _fates()
