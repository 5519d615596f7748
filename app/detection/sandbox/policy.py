"""What a detector process keeps, and the function that gives up everything else.

It may read its libraries, its model and files that it receives open, write to its pipes, start threads and exit. It may
not open other files, create or change files, use sockets, signal or trace other processes, or execute programs. A
detector on a GPU needs device calls that cannot be told apart: it keeps its files and system calls, except those that
start programs, trace or signal others, or reach the network.
"""

import fcntl
import os
import resource
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from app.detection.sandbox import landlock, seccomp
from app.detection.sandbox.kernel import give_up_privileges
from app.detection.sandbox.seccomp import ALLOW, Condition, Rules, Test
from app.settings.detector import DetectorOptions

_CLONE_THREAD = 0x0001_0000
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41

_MEMORY = ("brk", "madvise", "mmap", "mprotect", "mremap", "munmap")
_THREADS = (
    *("exit", "exit_group", "futex", "getcpu", "membarrier", "restart_syscall", "rseq", "sched_getaffinity"),
    *("sched_yield", "set_robust_list", "setitimer"),
)
_SIGNALS_TO_ITSELF = ("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack")
_TIME = ("clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "times")
_ITSELF = (
    *("getcwd", "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "getrusage", "gettid", "getuid"),
    *("sysinfo", "uname"),
)
_READING = (
    *("close", "dup", "fadvise64", "fstat", "getdents64", "lseek", "newfstatat", "pread64", "preadv", "read", "readv"),
    *("access", "faccessat", "faccessat2", "lstat", "readlink", "readlinkat", "stat", "statx"),
)
_PIPES = ("poll", "ppoll", "recvfrom", "recvmsg", "sendto", "write", "writev")
_WRITING_FLAGS = (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND)

_STARTING = ("execve", "execveat", "fork", "vfork")
_OTHERS = (
    *("kill", "pidfd_getfd", "pidfd_send_signal", "process_vm_readv", "process_vm_writev", "ptrace"),
    *("rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill"),
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The restrictions that hold: Landlock's version (0 without), whether it guards files, and the seccomp filter."""

    landlock: int = 0
    files: bool = False
    seccomp: bool = False

    @property
    def is_complete(self) -> bool:
        return self.files and self.seccomp

    @property
    def missing(self) -> list[str]:
        """Descriptions of the restrictions that do not hold."""
        return [
            *([] if self.files else ["Landlock does not guard the detector's files"]),
            *([] if self.seccomp else ["seccomp does not filter its system calls"]),
        ]


NO_SANDBOX = Sandbox()

_SCOPES_VERSION = 6
"""The Landlock version from which on it restricts more than files and TCP."""


def available(options: DetectorOptions) -> Sandbox:
    """Return the restrictions that this kernel supports for a detector process. Changes nothing."""
    if options.sandbox == "off":
        return NO_SANDBOX
    version = landlock.version()
    return Sandbox(version, files=version > 0 and options.provider == "cpu", seccomp=seccomp.is_offered())


def restrict(readable: Iterable[Path], options: DetectorOptions) -> Sandbox:
    """Give up everything that this module's docstring does not name, and return the restrictions that hold.

    `readable` are the files and folders that stay readable. The process must have one thread. Raises OSError if the
    kernel rejects a restriction that it claims to support.
    """
    supported = available(options)
    give_up_privileges()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if _threads() > 1:  # existing threads would stay unrestricted
        raise OSError(None, "the process already has more than one thread")
    if supported.files or supported.landlock >= _SCOPES_VERSION:
        landlock.apply(readable if supported.files else None)
    architecture = seccomp.own_architecture()
    if supported.seccomp and architecture is not None:
        rules = _rules() if options.provider == "cpu" else _rules_with_devices()
        seccomp.apply(seccomp.program(rules, architecture), architecture)
    return supported


def libraries(modules: Sequence[ModuleType]) -> list[Path]:
    """Return the folders from which this process may still load code.

    They are the folders of Python's standard library, of the modules' packages, and of the shared libraries in use.
    """
    installed = (Path(module.__file__).parents[1] for module in modules if module.__file__)
    folders = [
        *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
        *installed,
        *_folders_of_loaded_libraries(),
        Path("/etc/ld.so.cache"),
    ]
    return list(dict.fromkeys(folders))


def _folders_of_loaded_libraries(maps: Path = Path("/proc/self/maps")) -> list[Path]:
    """Return the folders of the shared libraries that are mapped into this process."""
    try:
        mapped = [line.split(maxsplit=5)[5:] for line in maps.read_text().splitlines()]
    except OSError:
        return []
    files = (Path(path[0]) for path in mapped if path)
    return [file.parent for file in files if ".so" in file.name and file.is_absolute()]


def _threads() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:  # without /proc the number is unknown
        return 1


def _rules() -> Rules:
    return Rules(
        allowed=(
            *("read", "write", "futex"),  # the most frequent first, because the filter is sequential
            *_MEMORY, *_THREADS, *_SIGNALS_TO_ITSELF, *_TIME, *_ITSELF, *_READING, *_PIPES,
        ),
        unknown=("clone3",),  # a filter cannot read its flags from memory; the C library falls back to clone
        conditions={
            **_own_threads_and_signals(),
            "open": Condition(1, Test.LACKS, _WRITING_FLAGS),
            "openat": Condition(2, Test.LACKS, _WRITING_FLAGS),
            "fcntl": Condition(1, Test.IS, (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC)),
            "prctl": Condition(0, Test.IS, (_PR_SET_NAME, _PR_SET_VMA)),
            "prlimit64": Condition(2, Test.IS_NULL),
        },
    )  # fmt: skip


def _rules_with_devices() -> Rules:
    return Rules(
        refused=(*_STARTING, *_OTHERS, "io_uring_setup"),
        unknown=("clone3",),
        conditions={**_own_threads_and_signals(), "socket": Condition(0, Test.IS, (1,))},  # AF_UNIX
        otherwise=ALLOW,
    )


def _own_threads_and_signals() -> dict[str, Condition]:
    return {
        "clone": Condition(0, Test.HAS, (_CLONE_THREAD,)),
        "tgkill": Condition(0, Test.IS, (os.getpid(),)),  # abort() sends one
    }
