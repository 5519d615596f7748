"""What an attacker tries after taking over a decoder: run inside a real detector process, in place of `av.open`.

Each attempt is a function that returns on success and raises OSError if it is refused. The list of successes is sent
through the channel as one of the detector's own events, as an attacker could do.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()
SECRETS = ("JWT_SECRET_KEY", "DATABASE_URL")
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17


def called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read_secrets_of_the_environment() -> None:
    found = [name for name in SECRETS if name in os.environ or os.getenv(name)]
    if not found:
        raise OSError("nothing there")


def read(path: str) -> Callable[[], object]:
    return lambda: os.read(os.open(path, os.O_RDONLY), 1)


def write(path: str, flags: int) -> Callable[[], object]:
    return lambda: os.open(path, flags, 0o600)


def connect(family: int, kind: int, address: Any) -> Callable[[], object]:
    def attempt() -> None:
        with socket.socket(family, kind) as sock:
            sock.settimeout(1)
            sock.connect(address)
            sock.send(b"?")

    return attempt


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def trace() -> None:
    called(libc.ptrace(PTRACE_SEIZE, PARENT, None, None))
    libc.ptrace(PTRACE_DETACH, PARENT, None, None)


def read_memory(address: int) -> Callable[[], object]:
    def attempt() -> None:
        local = ctypes.create_string_buffer(8)
        here, there = (struct.pack("@PN", start, 8) for start in (ctypes.addressof(local), address))
        called(libc.process_vm_readv(PARENT, here, 1, there, 1, 0))

    return attempt


def signal_by_descriptor(fd: int) -> Callable[[], object]:
    return lambda: fcntl.fcntl(fd, fcntl.F_SETOWN, PARENT)


def attempts(paths: dict[str, str], media: int, channel: int) -> dict[str, Callable[[], object]]:
    """Return the attempts by name. `media` is the descriptor of the file, `channel` that of the connection to the
    parent.
    """
    return {
        "environment": read_secrets_of_the_environment,
        "own /proc": read("/proc/self/environ"),
        "parent's environment": read(f"/proc/{PARENT}/environ"),
        "parent's memory": read(f"/proc/{PARENT}/maps"),
        "parent's command": read(f"/proc/{PARENT}/cmdline"),
        "parent's files": lambda: list(Path(f"/proc/{PARENT}/fd").iterdir()),
        "passwords": read("/etc/passwd"),
        "database": read(paths["database"]),
        "another media": read(paths["media"]),
        "names of media": lambda: list(Path(paths["media"]).parent.iterdir()),
        "the media by its descriptor": read(f"/proc/self/fd/{media}"),
        "new file": write(paths["new"], os.O_WRONLY | os.O_CREAT),
        "unnamed file": write(str(Path(paths["new"]).parent), os.O_RDWR | os.O_TMPFILE),
        "overwriting": write(paths["media"], os.O_WRONLY),
        "emptying": write(paths["media"], os.O_RDONLY | os.O_TRUNC),
        "shared memory": lambda: os.memfd_create("x"),
        "folder": lambda: Path(paths["new"] + ".d").mkdir(),
        "link": lambda: os.link(paths["media"], paths["new"] + ".link"),
        "symbolic link": lambda: Path(paths["new"] + ".symlink").symlink_to("/"),
        "removing": lambda: Path(paths["doomed"]).unlink(),
        "renaming": lambda: Path(paths["moving"]).rename(paths["new"] + ".renamed"),
        "mode": lambda: os.fchmod(media, 0o777),
        "time": lambda: os.utime(media),
        "lock": lambda: fcntl.flock(media, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "TCP": connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(paths["port"]))),
        "IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close(),
        "UDP": connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
        "Unix socket": connect(socket.AF_UNIX, socket.SOCK_STREAM, paths["socket"]),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        "socket pair": socket.socketpair,
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "program in place": lambda: os.execv("/bin/false", ["false"]) if paths["seals"] else None,
        "fork": fork,
        "vfork": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        "signal": lambda: os.kill(PARENT, 0),
        "signal to a thread": lambda: called(libc.tgkill(PARENT, PARENT, 0)),
        "signal to all": lambda: os.killpg(os.getpgid(PARENT), 0),
        "process descriptor": lambda: os.pidfd_open(PARENT),
        "signal by a descriptor": signal_by_descriptor(channel),
        "tracing": trace,
        "memory of the parent": read_memory(int(paths["address"])),
        "limits": lambda: __import__("resource").setrlimit(7, (4096, 4096)),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, PARENT, os.getpriority(os.PRIO_PROCESS, PARENT)),
        "namespaces": lambda: called(libc.unshare(0x400)),
        "device": lambda: fcntl.ioctl(2, 0x5451),
        "new root": lambda: os.chroot("/"),
        "ring": lambda: called(libc.syscall(425, 4, ctypes.create_string_buffer(120))),
        "32 bit numbers": lambda: called(libc.syscall(0x4000_0000 | 39)) if os.uname().machine == "x86_64" else None,
    }


def take_over(paths: dict[str, str], media: int) -> None:
    """Try everything, and report what succeeded."""
    succeeded = []
    channel = int(sys.argv[1])
    for name, attempt in attempts(paths, media, channel).items():
        try:
            attempt()
        except Exception:  # noqa: BLE001, S112 (that none of them is a mistake is shown where nothing is refused)
            continue
        succeeded.append(name)
    message = {"type": "Failure", "kind": "undecodable", "reason": json.dumps(succeeded)}
    content = json.dumps(message).encode()
    os.write(channel, struct.pack("!I?", len(content), False) + content)
    signal.pause()
