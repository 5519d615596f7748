"""Resumable uploads against one whole body, and against a tus server in Python; called by benchmarks.ingest.

A part is sent by sendfile over a connection that is kept, so that the client costs both sides the same.
"""

import base64
import http.client
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

MIB = 1 << 20
Row = tuple[str, str, str]


def send_in_parts(url: str, file: Path, part: int, bearer: str) -> list[float]:
    """Send a file to the tus server at `url`, `part` bytes a request; returns the seconds of each part."""
    address, size, seconds = urlsplit(url), file.stat().st_size, []
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
    spoken = {"Authorization": f"Bearer {bearer}", "Tus-Resumable": "1.0.0"}
    said = f"filename {base64.b64encode(b'video.mp4').decode()},detect ZmFsc2U="
    location = _ask(connection, "POST", address.path, spoken | {"Upload-Length": str(size), "Upload-Metadata": said})
    path = urlsplit(location).path
    with file.open("rb") as content:
        for offset in range(0, size, part):
            began = time.perf_counter()
            length = min(part, size - offset)
            fields = {"Upload-Offset": str(offset), "Content-Length": str(length)}
            _send(connection, path, spoken | fields, content, offset, length)
            seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


def _ask(connection: http.client.HTTPConnection, method: str, path: str, fields: dict[str, str]) -> str:
    connection.request(method, path, headers=fields)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 201:
        raise RuntimeError(f"{method} {path} was answered {answer.status}")
    return answer.headers["Location"]


def _send(
    connection: http.client.HTTPConnection,
    path: str,
    fields: dict[str, str],
    content: BinaryIO,
    offset: int,
    length: int,
) -> None:
    connection.putrequest("PATCH", path)
    for name, value in (fields | {"Content-Type": "application/offset+octet-stream"}).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.sock.sendfile(content, offset, length)
    answer = connection.getresponse()
    told = answer.read()
    if answer.status != 204:
        raise RuntimeError(f"a part was answered {answer.status}: {told[:500]!r}")


def compare(ways: dict[str, Callable[[], object]], prepare: Callable[[], None], size: int, rounds: int) -> list[Row]:
    """Each way in turn, so often, after `prepare`, which is not measured; the throughput of the first is 1.00."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _round in range(rounds):
        for name, send in ways.items():
            prepare()
            began = time.perf_counter()
            send()
            taken[name].append(time.perf_counter() - began)
    first = statistics.median(taken[next(iter(ways))])
    rows = []
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        rows.append(
            (f"{size / MIB:,.0f} MiB, synced: {name}", f"{size / MIB / median:,.0f} MiB/s", f"{first / median:.2f}")
        )
    return rows
