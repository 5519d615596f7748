"""A filter of system calls for this process (seccomp), assembled here for the kernel's packet filter machine.

The machine has one accumulator, which is loaded with a word of the call at hand and compared; every jump leads a few
instructions on. A filter cannot be taken off again, and threads and programs that are started later have it too.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from app.detection.sandbox.kernel import is_linux, syscall
from app.detection.sandbox.syscalls import ARCHITECTURES, NEWEST, Architecture, number

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x4000_0000
"""Set in the number of each call of x86-64's second, 32 bit wide calling convention."""

ALLOW, _ERRNO, KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
REFUSE = _ERRNO | errno.EPERM
UNKNOWN = _ERRNO | errno.ENOSYS

Instruction = tuple[int, int, int, int]
"""Code, jump where true, jump where false, value."""

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_ALL_THREADS = 1
_INSTRUCTION = struct.Struct("=HBBI")
_HEADER = struct.Struct("@HP")


class Test(Enum):
    """How an argument is looked at. Of its 64 bits the lower half, which is all that the kernel takes of an `int`."""

    IS = "is one of the values"
    HAS = "has one of the bits"
    LACKS = "has none of the bits"
    IS_NULL = "is 0 in both halves, as a pointer to nothing is"


@dataclass(frozen=True, slots=True)
class Condition:
    """On the argument with that index, from 0."""

    argument: int
    test: Test
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What becomes of calls. `conditions`: allowed where the condition holds, and refused otherwise. `unknown`: said
    not to exist, so that the C library does it another way. All others: `otherwise`."""

    allowed: Sequence[str] = ()
    refused: Sequence[str] = ()
    unknown: Sequence[str] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    otherwise: int = REFUSE


def is_offered() -> bool:
    """Whether this machine's filters are known here, and its kernel takes them. Changes nothing."""
    architecture = own_architecture()
    if architecture is None:
        return False
    action = ctypes.create_string_buffer(struct.pack("=I", REFUSE & 0xFFFF_0000), 4)
    try:
        syscall(_seccomp(architecture), _GET_ACTION_AVAIL, 0, action)
    except OSError:
        return False
    return True


def own_architecture() -> Architecture | None:
    """This machine's; None where the filters are not written for it, or where it is no Linux."""
    return ARCHITECTURES.get(os.uname().machine) if is_linux() else None


def apply(instructions: Sequence[Instruction], architecture: Architecture) -> None:
    """Filter every thread of this process from now on; it must have given up its privileges before. Raises OSError."""
    packed = b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = ctypes.create_string_buffer(_HEADER.pack(len(instructions), ctypes.addressof(code)), _HEADER.size)
    thread = syscall(_seccomp(architecture), _SET_MODE_FILTER, _ALL_THREADS, header)
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} has a filter of its own")


def _seccomp(architecture: Architecture) -> int:
    called = number("seccomp", architecture)
    assert called is not None
    return called


def program(rules: Rules, architecture: Architecture) -> list[Instruction]:
    """The filter. A call of another architecture (32 bit code on a 64 bit kernel) ends the process."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER, 0, 3, NEWEST),
        (_ANY_BIT, 0, 1, _X32),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, UNKNOWN),
        *_verdicts(rules.allowed, ALLOW, architecture),
        *_verdicts(rules.refused, REFUSE, architecture),
        *_verdicts(rules.unknown, UNKNOWN, architecture),
        *_conditions(rules.conditions, architecture),
        (_RETURN, 0, 0, rules.otherwise),
    ]


def _verdicts(names: Sequence[str], verdict: int, architecture: Architecture) -> Iterator[Instruction]:
    for name in names:
        called = number(name, architecture)
        if called is not None:
            yield (_EQUAL, 0, 1, called)
            yield (_RETURN, 0, 0, verdict)


def _conditions(conditions: Mapping[str, Condition], architecture: Architecture) -> Iterator[Instruction]:
    for name, condition in conditions.items():
        called = number(name, architecture)
        if called is not None:
            block = [*_test(condition), (_RETURN, 0, 0, REFUSE), (_RETURN, 0, 0, ALLOW)]
            yield (_EQUAL, 0, len(block), called)
            yield from block


def _test(condition: Condition) -> Iterator[Instruction]:
    """Goes on with the next instruction where the condition does not hold, and with the one behind it where it does."""
    low = _ARGUMENTS_AT + 8 * condition.argument
    match condition.test:
        case Test.IS:
            yield (_LOAD, 0, 0, low)
            for index, value in enumerate(condition.values):
                yield (_EQUAL, len(condition.values) - index, 0, value)
        case Test.HAS:
            yield (_LOAD, 0, 0, low)
            yield (_ANY_BIT, 1, 0, sum(condition.values))
        case Test.LACKS:
            yield (_LOAD, 0, 0, low)
            yield (_ANY_BIT, 0, 1, sum(condition.values))
        case Test.IS_NULL:
            yield (_LOAD, 0, 0, low)
            yield (_EQUAL, 0, 2, 0)
            yield (_LOAD, 0, 0, low + 4)
            yield (_EQUAL, 1, 0, 0)
