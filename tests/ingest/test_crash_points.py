"""Uploads and sweeps killed at the system calls that change something, and failing disks.

A separate process does the work under strace, which kills it (or fails the call) at one chosen call. Then this process
checks what is left, sweeps, and uploads again. CRASH_POINTS=every kills at each call instead of at one of each kind.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.database import Database
from app.media.hashing import media_id_of_bytes
from tests.eventually import eventually
from tests.ingest.intake import TOGETHER, Intake, open_intake, picture, twin_of
from tests.long import later
from tests.paths import ROOT

PHOTO = picture("photo")
MAIN, WRITER = THREADS = (0, 1)
"""The thread that takes the file in, and the one that commits."""
CHANGES = "openat,write,pwrite64,ftruncate,fsync,fdatasync,link,linkat,unlink,unlinkat,flock,close,munmap"
EVERY = os.environ.get("CRASH_POINTS") == "every"
"""Whether each call is killed at, or only one of each kind: the first on each kind of file, and the last that writes to
the database. What opens without creating, or closes, leaves the disk as the next call finds it."""


def _why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-e", "trace=none", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()[:200]}"


WHY_NOT = _why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")]


class Workers:
    """The process of `upload_script.py`, whose forks each do one task, traced."""

    def __init__(self, folder: Path) -> None:
        self._trace = folder / "trace"
        # Coverage would add system calls to those that are counted.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ingest.upload_script"],
            cwd=ROOT,
            env=environment | {"TMPDIR": str(folder / "missing")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, intake: Intake, work: str, *injection: str, thread: int | None = None) -> tuple[str, list[str]]:
        """Return the task's result (empty if it was killed) and the lines of its trace.

        One of THREADS alone is traced, or all of them, each of which counts its own calls.
        """
        self._say(json.dumps([str(intake.folder), str(intake.database.url), work]))
        threads = self._heard().split()
        for one in threads:
            self._await_rest(one)
        traced = ["-f", "-p", threads[0]] if thread is None else ["-p", threads[thread]]
        tracer = subprocess.Popen(
            ["strace", "-y", "-o", self._trace, *traced, "-e", f"trace={CHANGES}", *injection],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in threads if thread is None else [threads[thread]]:
            self._await_tracer(one)
        self._say("go")
        outcome = self._heard()
        if outcome != "ended":
            assert self._heard() == "ended"
        tracer.wait(30)
        lines = self._trace.read_text(errors="replace").splitlines()
        return outcome.replace("ended", ""), [re.sub(r"^\d+ +", "", line) for line in lines]

    def stop(self) -> None:
        if self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.wait(30)
            self._process.stdout.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _await_rest(self, process_id: str) -> None:
        """Wait until the fork sleeps in its read: attaching strace in the middle of a call would miscount it."""
        eventually(
            lambda: "State:\tS" in Path(f"/proc/{process_id}/status").read_text(),
            "the process to wait for its line",
            seconds=30,
        )

    def _await_tracer(self, process_id: str) -> None:
        eventually(
            lambda: "TracerPid:\t0\n" not in Path(f"/proc/{process_id}/status").read_text(),
            "strace to attach",
            seconds=30,
        )


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.stop()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo"
    path.write_bytes(PHOTO)
    return path


@contextmanager
def new_intake(folder: Path, template: Path) -> Iterator[Intake]:
    """Return empty folders and an empty database."""
    folder.mkdir()
    shutil.copy(template, folder / "detections.db")
    with closing(Database(f"sqlite:///{folder}/detections.db")) as database:
        yield open_intake(folder / "media", database)


@contextmanager
def reopened(intake: Intake) -> Iterator[Intake]:
    with closing(Database(str(intake.database.url))) as database:
        yield open_intake(intake.folder, database)


def prepare(scenario: str, intake: Intake) -> None:
    """Create what exists before the work: nothing, or what earlier crashes left."""
    match scenario:
        case "adopted orphan" | "swept orphan":
            intake.orphan(PHOTO)
        case "replaced orphan":
            intake.orphan(twin_of(PHOTO))
        case "duplicate":
            intake.send(PHOTO)
    intake.database.close()


def points(lines: list[str]) -> list[tuple[str, int]]:
    """Return each call of the trace as its name and its number among those of the same name."""
    seen: Counter[str] = Counter()
    found = []
    for line in lines:
        if call := re.match(r"(\w+)\(", line):
            seen[call[1]] += 1
            found.append((call[1], seen[call[1]]))
    return found


def crash_points(trace: list[str]) -> list[tuple[str, int]]:
    """Where to kill: at each call of the trace, or at one of each kind."""
    calls = [line for line in trace if "(" in line]
    every = points(calls)
    if EVERY:
        return every
    first: dict[tuple[str, str], tuple[str, int]] = {}
    last: dict[tuple[str, str], tuple[str, int]] = {}
    for (call, number), line in zip(every, calls, strict=True):
        if call in ("close", "munmap") or (call == "openat" and "O_CREAT" not in line):
            continue
        kind = (call, _kind_of_file(line))
        first.setdefault(kind, (call, number))
        if call == "pwrite64":
            last[kind] = (call, number)
    chosen = {*first.values(), *last.values()}
    return [point for point in every if point in chosen]


def _kind_of_file(line: str) -> str:
    """The end of the name of the file that a call is about, which says what it is for."""
    names = [Path(name) for name in re.findall(r'[<"](/[^">]*)[">]', line.replace(f"<{ROOT}>", ""))]
    return names[0].suffix or re.sub(r"\W.*", "", names[0].name) if names else ""


SCENARIOS = later(["new", "duplicate"], "adopted orphan", "replaced orphan", "swept orphan", "tried folder")
WORK = {"swept orphan": "--sweep", "tried folder": "--try"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_wherever_it_is_killed_no_row_lacks_its_file_and_one_sweep_leaves_nothing(
    scenario: str, workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    work = WORK.get(scenario, str(photo))
    found: list[tuple[int, str, int]] = []
    for thread in THREADS:
        with new_intake(tmp_path / f"whole {thread}", sqlite_template) as intake:
            prepare(scenario, intake)
            outcome, trace = workers.run(intake, work, thread=thread)
        assert outcome in ("stored", "duplicate", "swept 1 1", "fit")
        found += [(thread, *point) for point in crash_points(trace)]
    assert scenario != "new" or {thread for thread, _, _ in found} == set(THREADS)
    for thread, call, number in found:
        where = f"thread {thread} killed at {call} {number}"
        with new_intake(tmp_path / where, sqlite_template) as intake:
            prepare(scenario, intake)
            kill = f"inject={call}:signal=SIGKILL:when={number}"
            outcome, trace = workers.run(intake, work, "-e", kill, thread=thread)
            assert "killed by SIGKILL" in trace[-1], where
            with reopened(intake) as after:
                after.assert_sound()
                assert len(after.rows()) == 1 or outcome not in ("stored", "duplicate"), where
                after.sweep.run()
                assert after.leftovers() == [], where
                assert after.stored() == {Path(row.path).name for row in after.rows()}, where
                after.send(PHOTO)
                after.assert_sound()
                assert len(after.rows()) == 1, where
                assert len(after.stored()) == 1, where
                assert after.creates() == 1, where
                assert after.final(PHOTO).read_bytes() == PHOTO, where


KILLS_TOGETHER = [
    *((call, 1) for call in ("flock", "fsync", "link", "pwrite64", "fdatasync", "unlink", "ftruncate")),
    *((call, 2) for call in ("write", "pwrite64", "fdatasync")),
    ("pwrite64", 6),
    ("pwrite64", 12),
]
"""Each thread counts its own calls: one that commits for others makes more of them than one that waits."""


def told_together(intake: Intake) -> dict[int, str]:
    """Return the results that concurrent uploads had reported by the end."""
    lines = (intake.folder / "told").read_text().splitlines() if (intake.folder / "told").exists() else []
    return {int(number): outcome for number, outcome in (line.split() for line in lines)}


@pytest.mark.parametrize(("call", "number"), KILLS_TOGETHER)
def test_wherever_uploads_that_share_a_commit_are_killed_what_was_told_is_true_and_nothing_is_left(
    call: str, number: int, workers: Workers, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "together", sqlite_template) as intake:
        intake.database.close()
        _, trace = workers.run(intake, "--together", "-e", f"inject={call}:signal=SIGKILL:when={number}")
        assert any("killed by SIGKILL" in line for line in trace)
        told = told_together(intake)
        with reopened(intake) as after:
            after.assert_sound()
            recorded = {row.id for row in after.rows()}
            assert {media_id_of_bytes(picture(upload)) for upload in told} <= recorded
            after.sweep.run()
            assert after.leftovers() == []
            assert after.stored() == {Path(row.path).name for row in after.rows()}
            for upload in range(TOGETHER):
                after.send(picture(upload))
            after.assert_sound()
            assert len(after.rows()) == len(after.stored()) == after.creates() == TOGETHER


@pytest.mark.parametrize(("call", "error"), [("fdatasync", "EIO"), ("fsync", "EIO"), ("fdatasync", "ENOSPC")])
def test_where_a_shared_commit_fails_each_of_its_uploads_is_told_and_nothing_is_left(
    call: str, error: str, workers: Workers, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "together", sqlite_template) as intake:
        intake.send(picture("before"))
        workers.run(intake, "--together", "-e", f"inject={call}:error={error}:when=1")
        told = told_together(intake)
        assert len(told) == TOGETHER
        assert set(told.values()) <= {"stored", "StorageFailed", "DatabaseDiskFailed", "StorageFull"}
        assert set(told.values()) != {"stored"}
        stored = {picture(upload) for upload, outcome in told.items() if outcome == "stored"} | {picture("before")}
        assert {row.id for row in intake.rows()} == {media_id_of_bytes(content) for content in stored}
        intake.assert_sound()
        intake.sweep.run()
        assert intake.stored() == {intake.final(content).name for content in stored}
        assert intake.leftovers() == []


def syncs(trace: list[str], database_folder: Path) -> list[tuple[str, int]]:
    """Return the syncs of a trace, except that of the database's folder, whose failure SQLite ignores."""
    calls = [line for line in trace if "(" in line]
    return [
        point
        for point, line in zip(points(calls), calls, strict=True)
        if "sync(" in line and f"<{database_folder}>" not in line
    ]


@pytest.mark.parametrize("scenario", ["new", "adopted orphan", "replaced orphan"])
def test_a_sync_that_fails_is_no_success_publishes_nothing_and_is_not_tried_again(
    scenario: str, workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    found: list[tuple[int, str, int]] = []
    for thread in THREADS:
        whole = tmp_path / f"whole {thread}"
        with new_intake(whole, sqlite_template) as intake:
            prepare(scenario, intake)
            intake.send(picture("before"))  # the log exists, and this connection keeps it
            _, trace = workers.run(intake, str(photo), thread=thread)
        found += [(thread, *point) for point in syncs(trace, whole)]
    assert len(found) >= 3
    for thread, call, number in found:
        where = f"thread {thread} {call} {number}"
        with new_intake(tmp_path / where, sqlite_template) as intake:
            prepare(scenario, intake)
            intake.send(picture("before"))
            refusal = f"inject={call}:error=EIO:when={number}"
            outcome, trace = workers.run(intake, str(photo), "-e", refusal, thread=thread)
            assert outcome in ("StorageFailed", "DatabaseDiskFailed"), where  # of the folder or the database
            failed = next(line for line in trace if "(INJECTED)" in line)
            path = re.search(r"<([^>]*)>", failed)
            assert path is not None
            later = trace[trace.index(failed) + 1 :]
            assert not [line for line in later if "sync(" in line and f"<{path[1]}>" in line], where
            assert len(intake.rows()) == 1, where
            intake.sweep.run()
            assert intake.leftovers() == [], where
            assert intake.stored() == {intake.final(picture("before")).name}, where
            assert intake.send(PHOTO).duplicate is False
            intake.assert_sound()


def test_a_commit_that_failed_never_comes_true_after_its_file_was_swept(
    workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    """A failed commit leaves frames in SQLite's log, which recovery after a crash could replay."""
    with new_intake(tmp_path / "live", sqlite_template) as intake:
        intake.send(picture("before"))
        outcome, _ = workers.run(intake, str(photo), "-e", "inject=fdatasync:error=EIO:when=1")
        assert outcome == "DatabaseDiskFailed"
        assert intake.final(PHOTO).exists()
        intake.sweep.run()
        assert not intake.final(PHOTO).exists()
        for name in ("detections.db", "detections.db-wal"):  # as a crash leaves them
            shutil.copy(tmp_path / "live" / name, tmp_path / name)
        with closing(Database(f"sqlite:///{tmp_path}/detections.db")) as recovered:
            open_intake(intake.folder, recovered).assert_sound()


@pytest.mark.parametrize("call", ["write", "link", "fsync", "pwrite64", "openat"])
def test_a_full_disk_is_said_so_leaves_nothing_behind_and_works_again_once_there_is_room(
    call: str, workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "media", sqlite_template) as intake:
        intake.send(picture("before"))
        when = 2 if call == "openat" else 1  # the first one opens the file that is sent
        outcome, _ = workers.run(intake, str(photo), "-e", f"inject={call}:error=ENOSPC:when={when}")
        assert outcome == "StorageFull"
        assert intake.leftovers() == []
        assert intake.stored() == {intake.final(picture("before")).name}
        assert len(intake.rows()) == 1
        assert workers.run(intake, str(photo))[0] == "stored"
        intake.assert_sound()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with pytest.raises(OSError, match="No space left"):
                write_on(file, size)


def write_on(file: io.RawIOBase, size: int) -> None:
    while True:
        file.write(bytes(size))


@pytest.mark.parametrize("holds", ["media", "database", "both"])
def test_a_really_full_disk_refuses_every_upload_and_takes_them_again_once_there_is_room(
    holds: str, small_disk: Path, tmp_path: Path, sqlite_template: Path, workers: Workers, photo: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = (elsewhere if holds == "database" else small_disk) / "media"
    path = (elsewhere if holds == "media" else small_disk) / "detections.db"
    shutil.copy(sqlite_template, path)
    with closing(Database(f"sqlite:///{path}")) as database:
        intake = open_intake(folder, database)
        intake.send(picture("before"))
        filler = small_disk / "filler"
        fill_up(filler)
        for _ in range(3):
            assert workers.run(intake, str(photo))[0] == "StorageFull"
            assert intake.leftovers() == []
            assert len(intake.stored()) == len(intake.rows()) == 1
        filler.unlink()
        assert workers.run(intake, str(photo))[0] == "stored"
        assert not intake.send(picture("after")).duplicate
        intake.assert_sound()


def test_nothing_is_created_outside_the_folders_and_never_in_the_system_folder_for_temporary_files(
    workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "media", sqlite_template) as intake:
        _, trace = workers.run(intake, str(photo))
    created = [found[1] for line in trace if "O_CREAT" in line and (found := re.search(r'"([^"]+)"', line))]
    assert any(path.startswith(str(intake.incoming)) for path in created)
    assert [path for path in created if not path.startswith(str(tmp_path / "media"))] == []


def test_a_file_is_synced_before_it_is_linked_and_its_folder_before_the_row_is_committed(
    workers: Workers, photo: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "media", sqlite_template) as intake:
        _, trace = workers.run(intake, str(photo))
    order = [
        next(number for number, line in enumerate(trace) if re.search(pattern, line))
        for pattern in (
            r"^write\(\d+<[^>]*\.part>",
            r"^fsync\(\d+<[^>]*\.part>",
            r"^link\(",
            rf"^fsync\(\d+<{intake.images}>",
            r"^pwrite64\(\d+<[^>]*-wal>",
            r"^fdatasync\(\d+<[^>]*-wal>",
            r"^unlink\([^)]*\.part",
            r'^write\(\d+<pipe:[^"]*"stored',
        )
    ]
    assert order == sorted(order)
