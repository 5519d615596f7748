"""A real file system without hard links, for tests."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("losetup", "mkfs.exfat", "mount.exfat-fuse", "umount")


@contextmanager
def mounted_exfat(folder: Path) -> Iterator[Path]:
    """Mount an exFAT in a file below a folder during the block; skip the test if that is not possible."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    attach, make, mount, unmount = (shutil.which(program, path=path) for program in PROGRAMS)
    if not (attach and make and mount and unmount):
        pytest.skip("exFAT is not installed (Debian: apt install exfat-fuse exfatprogs)")
    image, mounted = folder / "disk", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    mounted.mkdir()
    subprocess.run([make, image], check=True, capture_output=True)
    device = _or_skip([attach, "--find", "--show", str(image)])
    try:
        _or_skip([mount, device, str(mounted)])
        try:
            yield mounted
        finally:
            subprocess.run([unmount, mounted], check=True)
    finally:
        subprocess.run([attach, "--detach", device], check=True)


def _or_skip(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"exFAT cannot be mounted here: {done.stderr.strip()[:200]}")
    return done.stdout.strip()
