"""Folders on file systems that do not support publishing: probed, and reported in one line."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.database import Database
from app.errors import StorageFailed, Unavailable
from app.storage import INCOMING, Storage, file_systems
from app.storage.folder_probe import PROBE_SECONDS, FolderProbe
from tests.ingest.test_crash_points import WHY_NOT, Workers, new_intake
from tests.storage.exfat import mounted_exfat


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.stop()


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system without hard links, like USB disks, served from user space."""
    with mounted_exfat(tmp_path) as folder:
        yield folder


def open_storage(folder: Path) -> Storage:
    storage = Storage({"Image": folder / "images", "Video": folder / "videos"})
    storage.prepare()
    return storage


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_fit_folder_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    open_storage(tmp_path).ensure_fit()
    assert names_in(tmp_path) == []


def test_a_disk_without_hard_links_is_named_at_the_start_and_no_upload_begins_there(exfat: Path) -> None:
    storage = open_storage(exfat)
    with pytest.raises(StorageFailed) as told:
        storage.ensure_fit()
    assert str(exfat / "images") in str(told.value)
    assert "has no hard links (link: " in str(told.value)
    assert str(file_systems.kind_of(exfat)) in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(Unavailable, match="no hard links"):
        storage.incoming("Image", 1).__enter__()
    with pytest.raises(Unavailable, match="no hard links"):
        storage.admit(1)
    assert names_in(exfat) == []


@pytest.mark.parametrize(
    ("call", "error", "missing"),
    [
        ("link", "EPERM", "hard links (link: Operation not permitted)"),
        ("link", "EOPNOTSUPP", "hard links (link: Operation not supported)"),
        ("link", "EMLINK", "hard links (link: Too many links)"),
        ("fsync", "EINVAL", "fsync of files (fsync: Invalid argument)"),
        ("flock", "ENOLCK", "locks (flock: No locks available)"),
        ("openat", "ENAMETOOLONG", "names of 200 bytes (open: File name too long)"),
    ],
)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")
def test_what_a_file_system_refuses_is_named(
    call: str, error: str, missing: str, workers: Workers, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "intake", sqlite_template) as intake:
        outcome, _ = workers.run(intake, "--try", "-e", f"inject={call}:error={error}:when=1")
        assert f"has no {missing}." in outcome
        assert names_in(intake.folder) == []
        assert workers.run(intake, "--try")[0] == "fit"


@pytest.mark.parametrize(
    ("call", "when", "missing"),
    [
        ("fsync:error=EINVAL", 2, "fsync of folders"),
        ("link:retval=0", 2, "hard links that keep an existing file"),
        ("flock:retval=0", 2, "exclusive locks (flock)"),
    ],
)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")
def test_what_a_file_system_only_seems_to_do_is_named(
    call: str, when: int, missing: str, workers: Workers, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "intake", sqlite_template) as intake:
        outcome, _ = workers.run(intake, "--try", "-e", f"inject={call}:when={when}")
        assert f"has no {missing}" in outcome
        assert names_in(intake.folder) == []


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")
def test_a_full_or_broken_disk_is_not_taken_for_one_that_lacks_something(
    error: str, workers: Workers, tmp_path: Path, sqlite_template: Path
) -> None:
    with new_intake(tmp_path / "intake", sqlite_template) as intake:
        assert workers.run(intake, "--try", "-e", f"inject=fsync:error={error}:when=1")[0] == "fit"
        assert names_in(intake.folder) == []


def test_a_folder_is_tried_again_after_some_seconds_and_not_before(tmp_path: Path) -> None:
    seconds = 0.0
    incoming = tmp_path / INCOMING
    incoming.mkdir()
    trial = FolderProbe(tmp_path, incoming, monotonic=lambda: seconds)
    assert trial.result().error is None
    incoming.rmdir()
    assert trial.result().error is None
    seconds += PROBE_SECONDS
    assert trial.result().error == "No such file or directory"
    incoming.mkdir()
    seconds += PROBE_SECONDS
    assert trial.result().error is None


def test_a_sqlite_database_served_from_user_space_or_a_network_is_warned_of(exfat: Path, tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{exfat / 'detections.db'}")) as database:
        [warning] = [text for text in database.warnings() if "write-ahead log" in text]
        assert str(exfat) in warning
        assert "fuse" in warning
    with closing(Database(f"sqlite:///{tmp_path / 'detections.db'}")) as database:
        assert [text for text in database.warnings() if "write-ahead log" in text] == []


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuseblk", "ceph"])
def test_file_systems_that_others_serve_are_known_by_their_type(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:99999 / /proc rw shared:1 - proc proc rw\n"
        f"22 1 {os.major(device)}:{os.minor(device)} / {tmp_path} rw shared:2 master:1 - {kind} there:/x rw\n"
    )
    monkeypatch.setattr(file_systems, "MOUNTS", mounts)
    assert file_systems.network_kind_of(tmp_path) == kind


def test_a_local_file_system_is_none_of_those(tmp_path: Path) -> None:
    assert file_systems.kind_of(tmp_path) is not None
    assert file_systems.network_kind_of(tmp_path) is None
