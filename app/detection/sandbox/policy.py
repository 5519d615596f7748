"""What a detector process is left with, and the one call that takes the rest away.

It may read its libraries and its model, and files that it is handed open; write to the pipes that it has; start threads
and end itself. It may open nothing else, create and change nothing, reach nobody by a socket, a signal or a debugger,
and execute no program. A detector that works on a graphics card needs devices whose use cannot be told apart: it keeps
its files and system calls, but for those that start programs, trace others, signal them or reach the network.
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
    """What holds: the version of Landlock, 0 without it, whether it guards files, and whether calls are filtered."""

    landlock: int = 0
    files: bool = False
    seccomp: bool = False

    @property
    def is_whole(self) -> bool:
        return self.files and self.seccomp

    @property
    def missing(self) -> list[str]:
        """What does not hold, in words."""
        return [
            *([] if self.files else ["the detector's files are not guarded by Landlock"]),
            *([] if self.seccomp else ["its system calls are not filtered by seccomp"]),
        ]


NONE = Sandbox()

_SCOPED = 6
"""The version of Landlock from which on it guards more than files and TCP."""


def offered(options: DetectorOptions) -> Sandbox:
    """What a detector process of this machine will be under, as far as its kernel tells. Changes nothing."""
    if options.sandbox == "off":
        return NONE
    version = landlock.version()
    return Sandbox(version, files=version > 0 and options.provider == "cpu", seccomp=seccomp.is_offered())


def seal(readable: Iterable[Path], options: DetectorOptions) -> Sandbox:
    """Give up everything but what this module promises, as far as the kernel lets it be given up; returns what holds.

    `readable` are the files and folders that may still be opened, to read them. The process must have one thread.
    Raises OSError where the kernel refuses what it says that it has.
    """
    wanted = offered(options)
    give_up_privileges()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if _threads() > 1:  # those of before would be outside
        raise OSError(None, "it has more than one thread already")
    if wanted.files or wanted.landlock >= _SCOPED:
        landlock.apply(readable if wanted.files else None)
    architecture = seccomp.own_architecture()
    if wanted.seccomp and architecture is not None:
        rules = _rules() if options.provider == "cpu" else _rules_with_devices()
        seccomp.apply(seccomp.program(rules, architecture), architecture)
    return wanted


def libraries(modules: Sequence[ModuleType]) -> list[Path]:
    """The folders from which this process may still load code: Python's own, this service's, those in which the
    modules are installed with what they are linked to, and those of the system's libraries that are loaded."""
    installed = (Path(module.__file__).parents[1] for module in modules if module.__file__)
    folders = [
        *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
        *installed,
        *_loaded(),
        Path("/etc/ld.so.cache"),
    ]
    return list(dict.fromkeys(folders))


def _loaded(maps: Path = Path("/proc/self/maps")) -> list[Path]:
    """The folders of the shared libraries that are mapped into this process."""
    try:
        mapped = [line.split(maxsplit=5)[5:] for line in maps.read_text().splitlines()]
    except OSError:
        return []
    files = (Path(path[0]) for path in mapped if path)
    return [file.parent for file in files if ".so" in file.name and file.is_absolute()]


def _threads() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:  # no /proc: nothing can be told
        return 1


def _rules() -> Rules:
    return Rules(
        allowed=(
            *("read", "write", "futex"),  # first, since the filter goes through them one by one
            *_MEMORY, *_THREADS, *_SIGNALS_TO_ITSELF, *_TIME, *_ITSELF, *_READING, *_PIPES,
        ),
        unknown=("clone3",),  # its flags lie in memory, which a filter cannot read; the C library then calls clone
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
        "tgkill": Condition(0, Test.IS, (os.getpid(),)),  # abort() is one
    }
