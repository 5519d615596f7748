"""How files come in, all servers in one run: python -m benchmarks.ingest [--only NAME] [--bytes N] [--rounds N]

upload   one file by curl: ours against a bare socket server, nginx, FastAPI and Flask, none with fsync: in memory,
         where it costs nothing, and on the disk, where eatmydata keeps ours from it; and against the bare socket
         server on the disk, both with fsync
photos   photos of 200 kB from 8 clients: ours, recorded and durable, against FastAPI with a temporary file; with one
         process of ours and with as many as it starts by itself
resumable  one file as one raw body, as one part and in parts of 16 MiB, and against the tus server resumable-upload
parts    what a part costs at the beginning and at the end of ten times as much in 160 parts
memory   growth of the server process during an upload of 10 GiB, and what its id costs
growth   the cost of a byte with the size of the file; of a photo with the files and the media that are there already

Needs curl, nginx, eatmydata and a Linux with 16 GiB of memory; the peers' packages are installed into
var/.benchmark-peers.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.database import Database
from app.media.hashing import media_id_of_file
from app.process import processors
from benchmarks import servers
from benchmarks.apart import keep_apart
from benchmarks.backlog import fill
from benchmarks.photos import send
from benchmarks.processes import begin_peak, cpu_seconds, members, resident_bytes
from benchmarks.resumable import compare, send_in_parts
from benchmarks.servers import Server
from tests.paths import ROOT
from tests.system.service import Service, token

MIB = 1 << 20
MEMORY, DISK = Path("/dev/shm"), ROOT / "var"
CLIENTS = 8
PEER = 0
"""Stands for FastAPI where the others are numbers of our processes."""
Row = tuple[str, str, str]


def upload(at: "Places", size: int, rounds: int) -> list[Row]:
    """Every server in turn, a file that is new each time; the throughput of the first is 1.00."""
    rows = []
    for place, parent, wrapper in (("memory", MEMORY, ()), ("disk, without fsync", DISK, ("eatmydata",))):
        with ExitStack() as stack:
            every = _every_server(stack, at.folder(parent), wrapper)
            rows += _in_turn(place, every, at.video(size), rounds)
    with ExitStack() as stack:
        disk = at.folder(DISK)
        bare = stack.enter_context(servers.bare_socket(disk / "bare", "--fsync"))
        every = [*bare, *servers.views(stack.enter_context(servers.ours(disk / "ours")))]
        rows += _in_turn("disk, with fsync", every, at.video(size), rounds)
    return rows


def _every_server(stack: ExitStack, folder: Path, wrapper: tuple[str, ...]) -> list[Server]:
    """Ours and its peers, none of which syncs; ours neither, with the wrapper for it."""
    return [
        *stack.enter_context(servers.bare_socket(folder / "bare")),
        stack.enter_context(servers.bare_socket(folder / "duties", "--duties"))[1],
        *servers.views(stack.enter_context(servers.ours(folder / "ours", wrapper=wrapper))),
        stack.enter_context(servers.nginx(folder / "nginx")),
        stack.enter_context(servers.fastapi(folder / "fastapi")),
        stack.enter_context(servers.flask(folder / "flask")),
    ]


def _in_turn(place: str, every: list[Server], file: Path, rounds: int) -> list[Row]:
    size = file.stat().st_size
    times: dict[str, list[float]] = {server.name: [] for server in every}
    costs: dict[str, list[float]] = {server.name: [] for server in every}
    for _round in range(rounds):
        for server in random.sample(every, len(every)):
            _make_new(file)
            before = cpu_seconds(server.group)
            times[server.name].append(_curl(server, file))
            costs[server.name].append(cpu_seconds(server.group) - before)
            _empty(server.folder)
    first = statistics.median(times[every[0].name])
    rows = []
    for name, taken in times.items():
        median = statistics.median(taken)
        figure = f"{size / MIB / median:,.0f} MiB/s, {statistics.median(costs[name]):.2f} CPU s"
        rows.append((f"{size / MIB:,.0f} MiB, {place}: {name}", figure, f"{first / median:.2f}"))
    return rows


def _curl(server: Server, file: Path) -> float:
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "-H", "Expect:"]
    began = time.perf_counter()
    answered = subprocess.run([*command, *server.curl(file)], capture_output=True, text=True, check=True).stdout
    taken = time.perf_counter() - began
    if answered not in ("200", "201", "204"):
        raise RuntimeError(f"{server.name} answered {answered}")
    return taken


def _make_new(file: Path) -> None:
    """Another file of the same size: its id samples the first kilobyte."""
    with file.open("r+b") as open_file:
        open_file.seek(64)
        open_file.write(os.urandom(64))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def photos(at: "Places", count: int = 2000, rounds: int = 5) -> list[Row]:
    """Ours, with one process and as many as it starts by itself, against FastAPI on the same disk, in random turn."""
    disk = at.folder(DISK)
    keep_apart(disk)
    every = processors.default_server_processes()
    with ExitStack() as stack:
        peer = stack.enter_context(servers.fastapi(at.folder(disk)))
        sent: dict[int, tuple[int, list[str]]] = {PEER: (peer.group, [peer.url.replace("upload", "forget")])}
        for number in sorted({1, every}):
            service = stack.enter_context(servers.ours(at.folder(disk), workers=number))
            assert service.process is not None
            sent[number] = service.process.pid, [f"{service.url}/media", token()]
        rates: dict[int, list[float]] = {number: [] for number in sent}
        costs: dict[int, list[float]] = {number: [] for number in sent}
        for _round in range(rounds):
            for number, (group, arguments) in random.sample(list(sent.items()), len(sent)):
                before = cpu_seconds(group)
                rates[number].append(_photos(arguments, count))
                costs[number].append((cpu_seconds(group) - before) / count * 1000)
    their, their_cost = statistics.median(rates[PEER]), statistics.median(costs[PEER])
    rows = []
    for number in [number for number in sent if number != PEER]:
        our, our_cost = statistics.median(rates[number]), statistics.median(costs[number])
        what = f"photos of 200 kB, {CLIENTS} clients, {number} of our processes: recorded and durable against FastAPI"
        figure = f"{our:.0f} against {their:.0f} photos/s, {our_cost:.2f} against {their_cost:.2f} CPU ms each"
        rows.append((what, figure, f"{our / their:.2f}"))
    return rows


def _photos(arguments: list[str], count: int) -> float:
    url, *key = arguments
    command = [sys.executable, "-m", "benchmarks.photos", url, str(count), str(CLIENTS), *key]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def resumable(at: "Places", size: int, rounds: int) -> list[Row]:
    """One whole body, one part, and parts of 16 MiB, ours; and a tus server of another's in parts of 16 MiB."""
    disk, file, bearer = at.folder(DISK), at.video(size), token()
    with ExitStack() as stack:
        service = stack.enter_context(servers.ours(disk / "ours"))
        peer = stack.enter_context(servers.resumable(disk / "peer"))
        raw = servers.views(service)[0]

        def prepare() -> None:
            _empty(service.videos)
            for path in peer.folder.rglob("*"):
                if path.is_file() and path.stat().st_size >= size:  # its database stays
                    path.unlink()
            _make_new(file)

        def in_parts(url: str, part: int) -> Callable[[], object]:
            return lambda: send_in_parts(url, file, part, bearer)

        ways: dict[str, Callable[[], object]] = {
            "ours, one raw body": lambda: _curl(raw, file),
            "ours, one part": in_parts(f"{service.url}/uploads", size),
            "ours, parts of 16 MiB": in_parts(f"{service.url}/uploads", 16 * MIB),
            "resumable-upload, parts of 16 MiB": in_parts(f"{peer.url}s", 16 * MIB),
        }
        return compare(ways, prepare, size, rounds)


def parts(at: "Places", size: int = 10 << 30) -> list[Row]:
    """What a part costs at the beginning and at the end of 10 GiB in 160 parts, but for the last, which publishes; and
    how much one worker's memory grows meanwhile."""
    file = at.sparse(size)
    with servers.ours(at.folder(DISK) / "ours") as service:
        _warm(service)
        worker = _worker(service)
        before = resident_bytes(worker)
        begin_peak(worker)
        *seconds, last = send_in_parts(f"{service.url}/uploads", file, size // 160, token())
        grown = resident_bytes(worker, peak=True) - before
    first, end = statistics.median(seconds[:40]), statistics.median(seconds[-40:])
    figure = f"{first * 1000:.0f} ms at the beginning, {end * 1000:.0f} ms at the end, {last:.1f} s the last"
    return [
        (f"one of 160 parts of {size / MIB:,.0f} MiB", figure, f"{first / end:.2f}"),
        (f"growth during {size / MIB:,.0f} MiB in parts", f"{grown / MIB:.1f} MiB", "under 16 MiB"),
    ]


def memory(at: "Places", size: int = 10 << 30) -> list[Row]:
    """One worker's memory before 10 GiB, and at most while they come."""
    rows = []
    file = at.sparse(size)
    with servers.ours(at.folder(MEMORY) / "ours") as service:
        for server in servers.views(service):
            _warm(service)
            worker = _worker(service)
            before = resident_bytes(worker)
            begin_peak(worker)
            _make_new(file)
            _curl(server, file)
            grown = resident_bytes(worker, peak=True) - before
            _empty(server.folder)
            rows.append((f"growth during {size >> 30} GiB: {server.name}", f"{grown / MIB:.1f} MiB", "under 16 MiB"))
    fd = os.open(file, os.O_RDONLY)
    taken = min(_timed(lambda: media_id_of_file(fd)) for _ in range(20))
    os.close(fd)
    return [*rows, (f"id of {size >> 30} GiB", f"{taken * 1000:.3f} ms", "under 1 ms")]


def _warm(service: Service) -> None:
    send(f"{service.url}/media", 50, 1, token())


def _worker(service: Service) -> int:
    assert service.process is not None
    master = service.process.pid
    return max((pid for pid in members(master) if pid != master), key=resident_bytes)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def growth(at: "Places", media: int, files: int) -> list[Row]:
    """What one more byte costs in larger files, and one more photo beside more of them."""
    rows = []
    with servers.ours(at.folder(MEMORY) / "sizes") as service:
        raw = servers.views(service)[0]
        for size in (MIB, 32 * MIB, 1 << 30, 10 << 30):
            file = at.sparse(size)
            taken = []
            for _ in range(3 if size > 1 << 30 else 9):
                _make_new(file)
                taken.append(_curl(raw, file))
                _empty(raw.folder)
            rate = size / MIB / statistics.median(taken)
            rows.append((f"a raw body of {size / MIB:,.0f} MiB", f"{rate:,.0f} MiB/s", ""))
    rows += _beside(at, f"{files:,} files in the folder", lambda service: _many_files(service.images, files))
    rows += _beside(at, f"{media:,} media in the tables", lambda service: _many_media(service, media))
    return rows


def _beside(at: "Places", what: str, prepare: Callable[[Service], None]) -> list[Row]:
    disk = at.folder(DISK)
    rates: tuple[list[float], list[float]] = ([], [])
    with servers.ours(disk / "few") as few, servers.ours(disk / "many") as many:
        prepare(many)
        for _round in range(7):
            for service, seen in zip((few, many), rates, strict=True):
                seen.append(send(f"{service.url}/media", 100, 1, token()))
    alone, beside = (statistics.median(rate) for rate in rates)
    shutil.rmtree(disk)
    return [(f"a photo beside {what}", f"{1000 / beside:.2f} against {1000 / alone:.2f} ms", f"{alone / beside:.2f}")]


def _many_files(folder: Path, count: int) -> None:
    for number in range(count):
        os.close(os.open(folder / f"{number:016x}.jpg", os.O_CREAT | os.O_WRONLY))


def _many_media(service: Service, count: int) -> None:
    with closing(Database(service.environment["DATABASE_URL"])) as database:
        fill(database, media=count, history=0)


class Places:
    """Folders on the disk and in memory, and files to send; all gone at the end."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def folder(self, parent: Path) -> Path:
        """A new, empty folder."""
        parent.mkdir(parents=True, exist_ok=True)
        self._made.append(Path(tempfile.mkdtemp(prefix="detections-benchmark-", dir=parent)))
        return self._made[-1]

    def video(self, size: int) -> Path:
        """A file that begins as an MP4 and goes on at random."""
        path = self.folder(MEMORY) / "video.mp4"
        with path.open("wb") as file:
            file.write(_mp4_head())
            file.writelines(os.urandom(MIB) for _ in range(size // MIB - 1))
            file.write(bytes(size - file.tell()))
        return path

    def sparse(self, size: int) -> Path:
        """A file that begins as an MP4 and takes no room for the rest."""
        path = self.folder(DISK) / "video.mp4"
        path.write_bytes(_mp4_head())
        os.truncate(path, size)
        return path

    def close(self) -> None:
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)


def _mp4_head() -> bytes:
    return b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41".ljust(1024, b"\x00")


def _show(rows: Iterable[Row]) -> None:
    table = Table("what", "figure", "ratio or aim")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> None:
    """Run them all, or one, and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["upload", "photos", "resumable", "parts", "memory", "growth"])
    parser.add_argument("--bytes", type=int, default=1 << 30, help="size of the uploaded file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--media", type=int, default=10_000_000, help="media in the larger tables")
    parser.add_argument("--files", type=int, default=1_000_000, help="files in the larger folder")
    options = parser.parse_args()
    measures: dict[str, Callable[[Places], list[Row]]] = {
        "upload": lambda at: upload(at, options.bytes, options.rounds),
        "photos": photos,
        "resumable": lambda at: resumable(at, options.bytes, options.rounds),
        "parts": lambda at: parts(at, 10 * options.bytes),
        "memory": memory,
        "growth": lambda at: growth(at, options.media, options.files),
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever is stopped stops its servers, too
    with closing(Places()) as at:
        for name, measure in measures.items():
            if options.only in (None, name):
                _show(measure(at))


if __name__ == "__main__":
    main()
