"""Numbers of the Linux system calls that the filters name, by architecture.

The numbers are part of the kernel's stable ABI. None means that the architecture has no such call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NEWEST = 462
"""The newest call when the filters were written. From 424 on all architectures share the numbers."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit` is the kernel's identifier, as a filter reads it; `column` is the index in the table of numbers."""

    audit: int
    column: int


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "x86_64": Architecture(0xC000003E, 0),
        "aarch64": Architecture(0xC00000B7, 1),
    }
)
"""By the name in `os.uname().machine`."""


def number(name: str, architecture: Architecture) -> int | None:
    """Return the number of a system call in the table; None if the architecture has no such call."""
    return _NUMBERS[name][architecture.column]


_NUMBERS: Mapping[str, tuple[int | None, int | None]] = MappingProxyType(
    {
        "access": (21, None),
        "brk": (12, 214),
        "clock_getres": (229, 114),
        "clock_gettime": (228, 113),
        "clock_nanosleep": (230, 115),
        "clone": (56, 220),
        "clone3": (435, 435),
        "close": (3, 57),
        "dup": (32, 23),
        "execve": (59, 221),
        "execveat": (322, 281),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "fadvise64": (221, 223),
        "fcntl": (72, 25),
        "fork": (57, None),
        "fstat": (5, 80),
        "futex": (202, 98),
        "getcpu": (309, 168),
        "getcwd": (79, 17),
        "getdents64": (217, 61),
        "getegid": (108, 177),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getpid": (39, 172),
        "getppid": (110, 173),
        "getrandom": (318, 278),
        "getrusage": (98, 165),
        "gettid": (186, 178),
        "gettimeofday": (96, 169),
        "getuid": (102, 174),
        "io_uring_setup": (425, 425),
        "kill": (62, 129),
        "lseek": (8, 62),
        "lstat": (6, None),
        "madvise": (28, 233),
        "membarrier": (324, 283),
        "mmap": (9, 222),
        "mprotect": (10, 226),
        "mremap": (25, 216),
        "munmap": (11, 215),
        "nanosleep": (35, 101),
        "newfstatat": (262, 79),
        "open": (2, None),
        "openat": (257, 56),
        "openat2": (437, 437),
        "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424),
        "poll": (7, None),
        "ppoll": (271, 73),
        "prctl": (157, 167),
        "pread64": (17, 67),
        "preadv": (295, 69),
        "prlimit64": (302, 261),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "ptrace": (101, 117),
        "read": (0, 63),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "readv": (19, 65),
        "recvfrom": (45, 207),
        "recvmsg": (47, 212),
        "restart_syscall": (219, 128),
        "rseq": (334, 293),
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigqueueinfo": (129, 138),
        "rt_sigreturn": (15, 139),
        "rt_tgsigqueueinfo": (297, 240),
        "sched_getaffinity": (204, 123),
        "sched_yield": (24, 124),
        "seccomp": (317, 277),
        "sendto": (44, 206),
        "set_robust_list": (273, 99),
        "setitimer": (38, 103),
        "sigaltstack": (131, 132),
        "socket": (41, 198),
        "stat": (4, None),
        "statx": (332, 291),
        "sysinfo": (99, 179),
        "tgkill": (234, 131),
        "time": (201, None),
        "times": (100, 153),
        "tkill": (200, 130),
        "uname": (63, 160),
        "vfork": (58, None),
        "write": (1, 64),
        "writev": (20, 66),
    }
)
