"""A root file system that nobody can write, as Kubernetes' readOnlyRootFilesystem: with a mount namespace of the test's
own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.system.service import SECRET

_SCRIPT = """set -e
mount --bind "$1" /mnt
mkdir /mnt/checkout && mount --bind "$2" /mnt/checkout && mount -o remount,bind,ro /mnt/checkout
for folder in /tmp /var/tmp $3; do mount -t tmpfs -o ro none "$folder"; done
cd /mnt/checkout && exec "$4" -m gunicorn -c gunicorn.conf.py --check-config wsgi:app
"""
SETTINGS = {
    "JWT_SECRET_KEY": SECRET,
    "IMAGES_DIR": "/mnt/images",
    "VIDEOS_DIR": "/mnt/videos",
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
}


def checked(
    folder: Path, *read_only: str, database: str = "sqlite:////mnt/none.db"
) -> subprocess.CompletedProcess[str]:
    python = Path(sys.executable)
    python = Path("/mnt/checkout") / python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    arguments = (str(folder), str(ROOT), " ".join(read_only), str(python))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", *arguments],
        env=SETTINGS | {"DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"mount namespaces are refused here: {done.stderr.strip()}")
    return done


@pytest.mark.long
def test_shared_memory_serves_where_no_temporary_folder_can_be_written(sqlite_url: str) -> None:
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    done = checked(folder, database=f"sqlite:////mnt/{Path(sqlite_url).name}")
    assert done.returncode == 0
    assert done.stderr == ""


def test_what_is_missing_is_told_in_one_line_where_nothing_can_be_written(tmp_path: Path) -> None:
    done = checked(tmp_path, "/dev/shm")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a tmpfs at /tmp" in done.stderr
