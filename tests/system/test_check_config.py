"""`gunicorn --check-config`, as docs/operations.md tells it to be used before a start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fork_server
from tests.long import later
from tests.paths import ROOT
from tests.system.service import SECRET


def checked(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """gunicorn as it ended; `folder` is its place for temporary files as well."""
    surroundings = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return fork_server.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *arguments, "wsgi:app"],
        cwd=ROOT,
        env=surroundings
        | {"JWT_SECRET_KEY": SECRET, "TMPDIR": str(folder)}
        | {"IMAGES_DIR": f"{folder}/images", "VIDEOS_DIR": f"{folder}/videos"}
        | settings,
        timeout=60,
    )


@pytest.mark.long
@pytest.mark.parametrize("arguments", later([("--check-config",)], ()), ids=["argument", "variable"])
def test_right_settings_are_found_right_and_nothing_is_left_of_it(
    tmp_path: Path, sqlite_url: str, arguments: tuple[str, ...]
) -> None:
    variable = {} if arguments else {"GUNICORN_CMD_ARGS": "--check-config"}
    (tmp_path / "checked").mkdir()
    done = checked(tmp_path / "checked", *arguments, DATABASE_URL=sqlite_url, **variable)
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == ""
    assert list((tmp_path / "checked").iterdir()) == []


@pytest.mark.long
def test_a_model_that_is_none_and_a_database_that_is_not_there_are_told_in_one_line(
    tmp_path: Path, sqlite_url: str
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"no model")
    done = checked(tmp_path, "--check-config", DATABASE_URL=sqlite_url, DETECTOR_MODEL=str(model))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "model.onnx" in done.stderr
    done = checked(tmp_path, "--check-config", DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"no database at {tmp_path}/none.db" in done.stderr
    assert not (tmp_path / "none.db").exists()


def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path) -> None:
    done = checked(tmp_path, "--check-config", DATABASE_URL="sqlite:///none.db", MAX_UPLOAD_BYTES="16GB")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "detections: MAX_UPLOAD_BYTES must be a whole number, not '16GB'.\n"
