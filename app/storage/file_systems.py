"""File systems: which one a path lies on, and whether a folder's can do what publishing a file needs.

That is tried, because its name tells too little: a share's server decides, and so do mount options. RENAME_NOREPLACE is
not taken for hard links where these are missing. A renamed file has one name, so nothing would prove an orphan after a
crash, and file systems without links seldom have the lasting inode numbers by which the proof is compared.
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

TRIAL_PREFIX = ".trial-"
_NAME_BYTES = 200
_CANNOT = {
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
"""How a file system says that it cannot do something, as against that it could not this time."""


class _Missing(Exception):
    """The file system cannot do what the text says."""


def kind_of(path: Path) -> str | None:
    """Return the type of the file system that a file or folder lies on, as `mount` names it; None where the system does
    not tell."""
    with suppress(OSError):
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in MOUNTS.read_text(errors="replace").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == wanted:
                return source.split()[0]
    return None


def network_kind_of(path: Path) -> str | None:
    """Return the type of the file system if others, on a network or in user space, serve it; None where none does."""
    kind = kind_of(path)
    return kind if kind and (kind in NETWORK or kind.startswith("fuse")) else None


def is_inability(error: BaseException | None) -> bool:
    """Tell whether an error says that the file system cannot do something, ever."""
    return isinstance(error, OSError) and error.errno in _CANNOT


def missing_for_publishing(folder: Path, incoming: Path) -> str | None:
    """Publish a small file from `incoming` into `folder` and take it back; return what their file system cannot do.

    What a crash leaves of it is one file with the same name in both, which begins with TRIAL_PREFIX. Raises OSError
    where the disk refuses for another reason: it is full, broken, or may not be written to.
    """
    try:
        _publish(folder, incoming)
    except _Missing as missing:
        kind = kind_of(folder)
        return f"its file system{f' ({kind})' if kind else ''} has no {missing}"
    return None


def _publish(folder: Path, incoming: Path) -> None:
    first, fd = _create_locked(incoming)
    final = folder / first.name
    try:
        os.write(fd, b"a trial of this folder")
        with _needed("fsync of files", "fsync"):
            os.fsync(fd)
        with _needed("hard links", "link"):
            os.link(first, final)
        _check_names(first, final)
        with _needed("fsync of folders", "fsync"):
            _sync(folder)
    finally:
        final.unlink(missing_ok=True)
        first.unlink(missing_ok=True)
        os.close(fd)


def _create_locked(incoming: Path) -> tuple[Path, int]:
    while True:
        path = incoming / f"{TRIAL_PREFIX}{secrets.token_hex(16)}-".ljust(_NAME_BYTES, "x")
        with _needed(f"names of {_NAME_BYTES} bytes", "open", {errno.ENAMETOOLONG}):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            with _needed("locks", "flock"):
                fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            path.unlink()
            os.close(fd)
            raise
        if path.exists():
            return path, fd
        os.close(fd)  # a sweep took it for a leftover between the two calls


def _check_names(first: Path, final: Path) -> None:
    """Raise where two names of a file do not do for it what they promise."""
    ours, theirs = first.stat(), final.stat()
    if not os.path.samestat(ours, theirs) or ours.st_nlink < 2:
        raise _Missing("hard links that tell that they are names of one file")
    try:
        os.link(first, final)
    except FileExistsError:
        pass
    else:
        raise _Missing("hard links that leave alone what has the name already")
    other = os.open(final, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(other)
    raise _Missing("locks that keep others out (flock)")


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _needed(what: str, call: str, refusals: Collection[int] = _CANNOT) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in refusals:
            raise _Missing(f"{what} ({call}: {error.strerror})") from error
        raise
