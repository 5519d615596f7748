"""Rows 47 to 50 of docs/reliability.md with their full figures, and what held before: SQLite as people treat it.

    python -m tests.system.sqlite_campaign [--only moved|replaced|refused|locks|kills|power|frames] [--small]

Each part runs the service under gunicorn on an SQLite file, uploads to it, does something to the file or to the
service, and checks what was acknowledged. Prints a line for each; exit 1 if one does not hold. `--small` takes a few
minutes, one of them for a log that is cut after a quiet minute.
"""

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import requests

from app.database import Database
from benchmarks.clips import write_clip
from tests.conftest import migrate
from tests.database.damaged_file import damage_frame
from tests.eventually import eventually
from tests.outbox.statements import add_backlog
from tests.reference.service import ReferenceService
from tests.system.load import Load
from tests.system.promise import photo, settle
from tests.system.refusing import readiness, refusing, worker_of
from tests.system.service import SECRET, Service


@dataclass(frozen=True, slots=True)
class Size:
    """How large a part is: seconds of each fault, kept messages, items, kills."""

    seconds: float
    kept: int
    items: int
    kills: int


FULL = Size(seconds=60, kept=3_000_000, items=500, kills=30)
SMALL = Size(seconds=2, kept=20_000, items=20, kills=3)
Part = Callable[[Service, Size], str]


def path_of(service: Service) -> Path:
    return Path(service.environment["DATABASE_URL"].removeprefix("sqlite:///"))


def recorded(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return {row[0] for row in connection.execute("SELECT id FROM media")}


def moved(service: Service, size: Size) -> str:
    """The file is renamed for a while, alone, with its log, and with its folder."""
    load, path = Load(), path_of(service)
    with load.on(service):
        for names in ((path.name,), tuple(file.name for file in path.parent.glob(f"{path.name}*"))):
            time.sleep(size.seconds / 4)
            for name in names:
                path.with_name(name).rename(path.with_name(f"aside-{name}"))
            readiness(service, 503)
            time.sleep(size.seconds / 2)
            for name in names:
                path.with_name(f"aside-{name}").rename(path.with_name(name))
            readiness(service, 200)
        aside = path.parent.with_name("aside")
        path.parent.rename(aside)
        readiness(service, 503)
        aside.rename(path.parent)
        readiness(service, 200)
    assert load.promised <= recorded(path), "an upload was acknowledged that is not in the file at its place"
    assert load.refused <= {503}, load.refused
    return load.figure()


def replaced(service: Service, size: Size) -> str:
    """An earlier copy comes to the file's place, without a stop: a restoration, and nothing after it is lost."""
    before, after, path = Load(), Load(), path_of(service)
    copy = path.with_name("copy.db")
    with before.on(service):
        time.sleep(size.seconds / 2)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        time.sleep(max(4.0, size.seconds / 2))  # the markers follow within seconds
    in_copy = recorded(copy)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    copy.rename(path)
    with after.on(service, first=500_000):
        time.sleep(1)
        readiness(service, 200)
        time.sleep(max(3.0, size.seconds / 2))
    found = recorded(path)
    assert in_copy <= found
    assert after.promised
    assert after.promised <= found, "an upload was acknowledged that is not in the file at its place"
    assert service.log.read_text(errors="replace").count("database_restored") == 1
    return after.figure()


def refused(service: Service, size: Size) -> str:
    """The log cannot be written, or not be synced, for a while: 503 or 507, and all goes on."""
    load, path = Load(), path_of(service)
    with load.on(service):
        for call, error in (("pwrite64", "EIO"), ("pwrite64", "EDQUOT"), ("pwrite64", "ENOSPC"), ("fdatasync", "EIO")):
            with refusing(call, worker_of(service), service.folder / "trace", error):
                readiness(service, 503)
                time.sleep(size.seconds)
            readiness(service, 200)
    assert load.promised <= recorded(path)
    assert load.refused <= {503, 507}, load.refused
    log = service.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:4000]
    return load.figure()


def locks(service: Service, size: Size) -> str:
    """`prune`, `VACUUM`, a long reader and somebody's write lock, beside uploads and a long history."""
    path = path_of(service)
    with closing(Database(f"sqlite:///{path}")) as database:
        add_backlog(database, size.kept, due_at=1.0, delivered=True)
    alone, beside = Load(), Load()
    with alone.on(service):
        time.sleep(max(2.0, size.seconds / 4))
    with beside.on(service, first=500_000), closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN")
        shell.execute("SELECT count(*) FROM media").fetchone()
        assert service.flask("outbox", "prune", timeout=3600).returncode == 0
        time.sleep(size.seconds)
        shell.execute("ROLLBACK")
        shell.execute("PRAGMA busy_timeout = 60000")
        shell.execute("VACUUM")
        shell.execute("BEGIN IMMEDIATE")
        time.sleep(size.seconds)
        shell.execute("ROLLBACK")
    assert beside.promised <= recorded(path)
    assert beside.refused <= {503}, beside.refused
    assert max(beside.seconds) < 8, "a client waited longer than the deadline and a transaction"
    log = path.with_name(f"{path.name}-wal")
    eventually(lambda: not log.exists() or log.stat().st_size == 0, "an empty log", seconds=90)
    return f"alone {alone.figure()}; beside {beside.figure()}"


def kills(service: Service, size: Size) -> str:
    """Everything is killed again and again while sound photos and videos are processed: none is told as Error."""
    files = [(f"{number}.png", photo(number)) for number in range(size.items)]
    for number in range(-(-size.items // 100)):
        clip = service.folder / f"{number}.mp4"
        write_clip(clip, width=320, height=240, rate=25, frames=100 + number, quality=25)
        files.insert(number, (clip.name, clip.read_bytes()))
    for name, content in files:
        answer = service.upload("/detect", content, name=name, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
    for _kill in range(size.kills):
        time.sleep(2)
        service.kill()
        service.start()
    path = path_of(service)

    def ended() -> dict[str, int] | None:
        with closing(sqlite3.connect(path)) as connection:
            states = dict(connection.execute("SELECT state, count(*) FROM detection_run GROUP BY state").fetchall())
        return states if set(states) <= {"done", "failed"} else None

    states = eventually(ended, "all runs to end", seconds=120 + 2 * size.items)
    assert "failed" not in states, states
    return f"{states['done']} runs done through {size.kills} kills, none failed"


def power(service: Service, size: Size) -> str:
    """What a power loss leaves, and kills under load: whatever was acknowledged before is there.

    A power loss is taken for the file and its log as they are at one moment, without the memory that processes share.
    """
    load, path = Load(), path_of(service)
    for number in range(size.kills):
        with load.on(service, first=number * 10_000):
            time.sleep(max(1.0, size.seconds / size.kills))
            promised = load.promised
            left = Path(tempfile.mkdtemp(dir=service.folder)) / path.name
            os.kill(worker_of(service), signal.SIGSTOP)
            for suffix in ("", "-wal"):
                shutil.copy(path.with_name(path.name + suffix), left.with_name(left.name + suffix))
            service.kill()
        assert promised <= recorded(left)
        service.start()
        assert load.promised <= recorded(path)
    settle(service)
    return load.figure()


def frames(service: Service, size: Size) -> str:
    """A frame of the log is damaged while nothing runs: what followed it is gone, which a start notices by the markers.

    Whoever sends the same again has it taken in, and both sides say the same in the end.
    """
    before, after, path = Load(), Load(), path_of(service)
    with before.on(service):
        time.sleep(max(3.0, size.seconds / 4))
    time.sleep(4)  # the markers follow within seconds
    service.kill()
    damage_frame(path.with_name(f"{path.name}-wal"), 0.3)
    lost = before.promised - recorded(path)
    assert lost, "the frame was not among those that are still needed"
    service.start()
    assert service.log.read_text(errors="replace").count("database_restored") == 1
    with after.on(service, first=500_000):
        time.sleep(max(2.0, size.seconds / 4))
    assert after.promised <= recorded(path)
    for uploads in before.uploads:
        for content in list(uploads.promised.values()):
            uploads.send(service, "/media", content)
    assert not before.refused, before.refused
    told = service.flask("outbox", "resend", "--missing", timeout=600)
    assert told.returncode == 0, told.stderr
    settle(service)
    compared = service.flask("outbox", "verify", "--remote", timeout=600)
    assert compared.returncode == 0, compared.stdout
    return f"{len(lost)} of {len(before.promised)} lost and taken in again; after it {after.figure()}"


PARTS: dict[str, Part] = {part.__name__: part for part in (moved, replaced, refused, locks, kills, power, frames)}


def holds(part: Part, size: Size) -> bool:
    """Run a part with a service of its own, and print what came of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "home").mkdir()
        migrate(f"sqlite:///{folder / 'home' / 'd.db'}")
        annotations = stack.enter_context(ReferenceService(folder / "annotations.db", SECRET))
        settings = {"DETECTION": "off"} if part is not kills else {}
        service = Service(folder, f"sqlite:///{folder / 'home' / 'd.db'}", annotations.url, **settings)
        stack.callback(service.kill)
        service.start()
        try:
            print(f"{part.__name__}: holds: {part(service, size)}", flush=True)
        except (AssertionError, requests.RequestException, subprocess.SubprocessError, sqlite3.Error) as error:
            print(f"{part.__name__}: does not hold: {error}", flush=True)
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where a part does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(arguments)
    size = SMALL if asked.small else FULL
    parts = [PARTS[asked.only]] if asked.only else list(PARTS.values())
    results = [holds(part, size) for part in parts]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
