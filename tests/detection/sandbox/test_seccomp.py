"""The seccomp program: its call numbers against libseccomp's, and its result for each call.

The test has a BPF machine of its own, so that the program is tested for both architectures.
"""

import ctypes
import ctypes.util
import os

import pytest

from app.detection.sandbox import policy, seccomp, syscalls
from app.detection.sandbox.seccomp import ALLOW, KILL_PROCESS, REFUSE, UNKNOWN, program
from app.detection.sandbox.syscalls import ARCHITECTURES, NEWEST, Architecture, number

RULES = policy._rules()
FOR_DEVICES = policy._rules_with_devices()
HIGH = 1 << 32

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def verdict(rules: seccomp.Rules, architecture: Architecture, call: str | int, *arguments: int) -> int:
    """Return the filter's result for a call."""
    called = call if isinstance(call, int) else number(call, architecture)
    if called is None:
        pytest.skip(f"this architecture has no {call}")
    words = {0: called, 4: architecture.audit}
    for index in range(6):
        value = arguments[index] if index < len(arguments) else 0
        words[16 + 8 * index], words[20 + 8 * index] = value & 0xFFFF_FFFF, value >> 32
    return run(program(rules, architecture), words)


def run(instructions: list[seccomp.Instruction], words: dict[int, int]) -> int:
    """Run the program on the subset of the BPF machine that it uses."""
    accumulator = at = 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = words[value]
            case 0x06:
                return value
            case 0x15 | 0x25 | 0x45:
                holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}
                at += if_true if holds[code] else if_false


@pytest.fixture(scope="module")
def libseccomp() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")


@architectures
def test_every_number_is_that_of_libseccomp(libseccomp: ctypes.CDLL, architecture: Architecture) -> None:
    wrong = {}
    for name in syscalls._NUMBERS:
        theirs = libseccomp.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture.audit), name.encode())
        if (number(name, architecture) or 0 if theirs >= 0 else None) != (theirs if theirs >= 0 else None):
            wrong[name] = theirs
    assert wrong == {}


@architectures
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("read", (3,)),
        ("openat", (-100 & 0xFFFF_FFFF, 0, os.O_RDONLY | os.O_CLOEXEC)),
        ("open", (0, os.O_RDONLY)),
        ("clone", (0x003D_0F00,)),  # as pthread_create() asks
        ("tgkill", (os.getpid(), 1, 6)),
        ("prctl", (15,)),
        ("prlimit64", (0, 3, 0, 0x7FFF_0000_1000)),
        ("fcntl", (3, 1)),
        ("setitimer", ()),
    ],
)
def test_what_a_detector_needs_is_allowed(call: str, arguments: tuple[int, ...], architecture: Architecture) -> None:
    assert verdict(RULES, architecture, call, *arguments) == ALLOW


@architectures
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("openat", (0, 0, os.O_WRONLY)),
        ("openat", (0, 0, os.O_RDWR)),
        ("openat", (0, 0, os.O_CREAT)),
        ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC)),
        ("open", (0, os.O_WRONLY | os.O_CREAT)),
        ("openat2", ()),
        ("clone", (17,)),  # SIGCHLD: a fork
        ("clone", (17 + (0x1_0000 * HIGH),)),
        ("fork", ()),
        ("vfork", ()),
        ("execve", ()),
        ("execveat", ()),
        ("tgkill", (1, 1, 9)),
        ("kill", (0, 9)),
        ("tkill", (1, 9)),
        ("socket", (1, 1, 0)),
        ("ptrace", ()),
        ("process_vm_readv", ()),
        ("prctl", (4, 1)),  # PR_SET_DUMPABLE
        ("prlimit64", (0, 1, 0x7FFF_0000_1000, 0)),
        ("prlimit64", (0, 1, 5 * HIGH, 0)),
        ("fcntl", (3, 8)),  # F_SETOWN
        ("fcntl", (3, 4)),  # F_SETFL
        ("io_uring_setup", ()),
        ("seccomp", (1,)),
    ],
)
def test_what_it_does_not_need_is_refused(call: str, arguments: tuple[int, ...], architecture: Architecture) -> None:
    assert verdict(RULES, architecture, call, *arguments) == REFUSE


@architectures
def test_calls_that_the_c_library_can_do_without_do_not_exist(architecture: Architecture) -> None:
    assert verdict(RULES, architecture, "clone3") == UNKNOWN
    assert verdict(RULES, architecture, NEWEST + 1) == UNKNOWN
    assert verdict(RULES, architecture, 0x3FFF_FFFF) == UNKNOWN


def test_another_calling_convention_is_no_way_around_it() -> None:
    x86_64, aarch64 = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
    assert verdict(RULES, x86_64, 0x4000_0000 | 0) == REFUSE  # read(), as x32
    assert run(program(RULES, x86_64), {0: 3, 4: 0x4000_0003}) == KILL_PROCESS  # i386
    assert run(program(RULES, aarch64), {0: 3, 4: 0x4000_0028}) == KILL_PROCESS  # arm


@architectures
def test_with_a_graphics_card_devices_work_and_others_are_left_alone(architecture: Architecture) -> None:
    for call in ("mmap", "clock_gettime", 29):
        assert verdict(FOR_DEVICES, architecture, call) == ALLOW
    assert verdict(FOR_DEVICES, architecture, "openat", 0, 0, os.O_RDWR) == ALLOW
    for family, expected in ((1, ALLOW), (2, REFUSE), (10, REFUSE)):
        assert verdict(FOR_DEVICES, architecture, "socket", family, 1, 0) == expected
    assert verdict(FOR_DEVICES, architecture, "clone", 17) == REFUSE
    assert verdict(FOR_DEVICES, architecture, "execve") == REFUSE
    for call in ("ptrace", "kill", "process_vm_readv", "pidfd_getfd"):
        assert verdict(FOR_DEVICES, architecture, call, 1) == REFUSE
    assert verdict(FOR_DEVICES, architecture, "clone3") == UNKNOWN
