"""The system calls for which Python has no function, by way of the C library."""

import ctypes
import os
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def is_linux() -> bool:
    """Whether there is anything to call."""
    return sys.platform == "linux"


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """What the call returns; a buffer goes as its address. Raises OSError where the kernel refuses it."""
    words = [ctypes.c_void_p(one) if one is None or isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return _checked(result)


def prctl(option: int, *arguments: int) -> int:
    """Set or ask something of this process. Raises OSError where the kernel refuses it."""
    words = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(ctypes.c_int(option), *words)
    return _checked(result)


def give_up_privileges() -> None:
    """Have no program that this process executes gain rights by its owner or its file's capabilities, for good."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Make this process, and those that it forks, not dumpable: no core file, and nobody but root may trace it or read
    its memory, its environment and its open files through /proc. Does nothing where the system is not Linux."""
    if is_linux():
        prctl(_PR_SET_DUMPABLE, 0)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
