"""Tells which file system a path lies on, and whether it supports what publishing a file needs.

Support is tested, because a file system's name says too little: a share's server and mount options decide. rename()
with RENAME_NOREPLACE is not used in place of hard links: a renamed file has one name, so nothing would prove the origin
of an orphan after a crash, and file systems without links rarely have the stable inode numbers that the proof compares.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = {"9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}

PROBE_PREFIX = ".trial-"
_NAME_BYTES = 200
_UNSUPPORTED = {
    errno.EBADF,
    errno.EINVAL,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EXDEV,
}
"""Error numbers that mean that an operation is not supported, as opposed to having failed once."""


class _NotSupported(Exception):
    """The file system does not support what the text names."""


def kind_of(path: Path) -> str | None:
    """Return the type of the file system of a path, as `mount` names it; None if the system does not tell."""
    with suppress(OSError):
        device = path.stat().st_dev
        device_number = f"{os.major(device)}:{os.minor(device)}"
        for line in MOUNTS.read_text(errors="replace").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == device_number:
                return source.split()[0]
    return None


def network_kind_of(path: Path) -> str | None:
    """Return the type of the file system if it is a network or FUSE file system, else None."""
    kind = kind_of(path)
    return kind if kind and (kind in NETWORK or kind.startswith("fuse")) else None


def is_unsupported(error: BaseException | None) -> bool:
    """Return whether an error means that the file system does not support an operation."""
    return isinstance(error, OSError) and error.errno in _UNSUPPORTED


def missing_for_publishing(folder: Path, incoming: Path) -> str | None:
    """Publish a small file from `incoming` into `folder` and remove it. Return what is not supported, or None.

    A crash leaves at most one file under the same name in both, starting with PROBE_PREFIX. Raises OSError for other
    errors of the disk: it is full, broken or read-only.
    """
    try:
        _publish(folder, incoming)
    except _NotSupported as error:
        kind = kind_of(folder)
        return f"its file system{f' ({kind})' if kind else ''} has no {error}"
    return None


def _publish(folder: Path, incoming: Path) -> None:
    first, fd = _create_locked(incoming)
    final = folder / first.name
    try:
        os.write(fd, b"a test of this folder")
        with _require("fsync of files", "fsync"):
            os.fsync(fd)
        with _require("hard links", "link"):
            os.link(first, final)
        _check_names(first, final)
        with _require("fsync of folders", "fsync"):
            _sync(folder)
    finally:
        final.unlink(missing_ok=True)
        first.unlink(missing_ok=True)
        os.close(fd)


def _create_locked(incoming: Path) -> tuple[Path, int]:
    while True:
        path = incoming / f"{PROBE_PREFIX}{secrets.token_hex(16)}-".ljust(_NAME_BYTES, "x")
        with _require(f"names of {_NAME_BYTES} bytes", "open", {errno.ENAMETOOLONG}):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            with _require("locks", "flock"):
                fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            path.unlink()
            os.close(fd)
            raise
        if path.exists():
            return path, fd
        os.close(fd)  # a sweep removed it between the two calls


def _check_names(first: Path, final: Path) -> None:
    """Raise _NotSupported unless hard links and locks behave as publishing needs."""
    first_status, final_status = first.stat(), final.stat()
    if not os.path.samestat(first_status, final_status) or first_status.st_nlink < 2:
        raise _NotSupported("hard links with a common inode number and link count")
    try:
        os.link(first, final)
    except FileExistsError:
        pass
    else:
        raise _NotSupported("hard links that keep an existing file")
    other = os.open(final, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(other)
    raise _NotSupported("exclusive locks (flock)")


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _require(what: str, call: str, error_numbers: Collection[int] = _UNSUPPORTED) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in error_numbers:
            raise _NotSupported(f"{what} ({call}: {error.strerror})") from error
        raise
