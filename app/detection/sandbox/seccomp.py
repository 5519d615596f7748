"""Builds and installs a seccomp filter of system calls for this process.

The filter is a program for the kernel's BPF machine: it loads a word of the call into an accumulator, compares it, and
jumps a few instructions ahead. An installed filter is permanent, and new threads and programs inherit it.
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
"""A bit set in the call numbers of x86-64's second, 32-bit calling convention."""

ALLOW, _ERRNO, KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
REFUSE = _ERRNO | errno.EPERM
UNKNOWN = _ERRNO | errno.ENOSYS

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, value."""

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_ALL_THREADS = 1
_INSTRUCTION = struct.Struct("=HBBI")
_HEADER = struct.Struct("@HP")


class Test(Enum):
    """How an argument is tested. All but IS_NULL test the lower 32 bits, all that the kernel takes of an `int`."""

    IS = "is one of the values"
    HAS = "has one of the bits"
    LACKS = "has none of the bits"
    IS_NULL = "is 0 in all 64 bits, as a null pointer is"


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one argument; `argument` is its index from 0."""

    argument: int
    test: Test
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to each system call.

    Calls in `allowed` are allowed and calls in `refused` fail with EPERM. Calls in `unknown` fail with ENOSYS, so that
    the C library uses another call. Calls in `conditions` are allowed if the condition holds and refused otherwise. All
    other calls get `otherwise`.
    """

    allowed: Sequence[str] = ()
    refused: Sequence[str] = ()
    unknown: Sequence[str] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    otherwise: int = REFUSE


def is_offered() -> bool:
    """Return whether the filters support this architecture and its kernel supports seccomp. Changes nothing."""
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
    """Return this machine's architecture; None if the filters do not support it."""
    return ARCHITECTURES.get(os.uname().machine) if is_linux() else None


def apply(instructions: Sequence[Instruction], architecture: Architecture) -> None:
    """Install the filter for every thread of this process. The process must have given up its privileges before.

    Raises OSError.
    """
    packed = b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
    code = ctypes.create_string_buffer(packed, len(packed))
    header = ctypes.create_string_buffer(_HEADER.pack(len(instructions), ctypes.addressof(code)), _HEADER.size)
    thread = syscall(_seccomp(architecture), _SET_MODE_FILTER, _ALL_THREADS, header)
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} already has a filter of its own")


def _seccomp(architecture: Architecture) -> int:
    call_number = number("seccomp", architecture)
    assert call_number is not None
    return call_number


def program(rules: Rules, architecture: Architecture) -> list[Instruction]:
    """Compile the rules. A call of another architecture (32-bit code on a 64-bit kernel) ends the process."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER, 0, 3, NEWEST),
        (_ANY_BIT, 0, 1, _X32),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, UNKNOWN),
        *_actions(rules.allowed, ALLOW, architecture),
        *_actions(rules.refused, REFUSE, architecture),
        *_actions(rules.unknown, UNKNOWN, architecture),
        *_conditions(rules.conditions, architecture),
        (_RETURN, 0, 0, rules.otherwise),
    ]


def _actions(names: Sequence[str], action: int, architecture: Architecture) -> Iterator[Instruction]:
    for name in names:
        call_number = number(name, architecture)
        if call_number is not None:
            yield (_EQUAL, 0, 1, call_number)
            yield (_RETURN, 0, 0, action)


def _conditions(conditions: Mapping[str, Condition], architecture: Architecture) -> Iterator[Instruction]:
    for name, condition in conditions.items():
        call_number = number(name, architecture)
        if call_number is not None:
            block = [*_test(condition), (_RETURN, 0, 0, REFUSE), (_RETURN, 0, 0, ALLOW)]
            yield (_EQUAL, 0, len(block), call_number)
            yield from block


def _test(condition: Condition) -> Iterator[Instruction]:
    """Compile a condition: skip one instruction if it holds, else continue with the next one."""
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
