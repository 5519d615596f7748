"""System calls that Python has no function for, called through the C library."""

import ctypes
import os
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def is_linux() -> bool:
    """Return whether this system has Linux's system calls."""
    return sys.platform == "linux"


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Return the result of a system call; a buffer is passed as its address. Raises OSError if the call fails."""
    words = [ctypes.c_void_p(word) if word is None or isinstance(word, int) else word for word in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return _checked(result)


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2) for this process. Raises OSError if the call fails."""
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(ctypes.c_int(option), *words)
    return _checked(result)


def give_up_privileges() -> None:
    """Set no_new_privs: programs executed from now on gain no rights from their owner or capabilities."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Make this process and the processes that it forks not dumpable. Does nothing outside Linux.

    There is no core file, and only root may trace the process or read its memory, environment and open files in /proc.
    """
    if is_linux():
        prctl(_PR_SET_DUMPABLE, 0)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
