"""Runs a command as on a kernel without a system call: `python -m tests.detection.kernels NUMBER COMMAND…`."""

import os
import sys

from app.detection.sandbox import seccomp
from app.detection.sandbox.kernel import give_up_privileges

LANDLOCK, SECCOMP = {"x86_64": (444, 317), "aarch64": (444, 277)}.get(os.uname().machine, (0, 0))


def main(number: str, program: str, *arguments: str) -> None:
    """Make the call fail with ENOSYS from now on, and execute the command."""
    architecture = seccomp.own_architecture()
    assert architecture is not None
    give_up_privileges()
    # Load the call's number: if it is the given one, return ENOSYS, else allow it.
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, int(number)), (0x06, 0, 0, seccomp.UNKNOWN), (0x06, 0, 0, seccomp.ALLOW)]
    seccomp.apply(steps, architecture)
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
