"""The machine loses its power during an upload in parts: what was acknowledged is there, at any moment, and goes on."""

import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update

from app.database import Database
from app.database.models import ResumableUpload
from tests import fork_server
from tests.conftest import Clock
from tests.eventually import eventually
from tests.ingest.intake import open_intake, picture
from tests.ingest.test_crash_points import WHY_NOT
from tests.paths import ROOT
from tests.resumable.power_loss import CALLS, Disk, calls, written
from tests.resumable.test_uploads import World

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")]

PHOTO = picture("photo")


def traced(folder: Path, photo: Path) -> str:
    """The trace of an upload in parts into `folder`."""
    trace, url = folder.parent / "trace", f"sqlite:///{folder}/detections.db"
    command = [sys.executable, "-m", "tests.resumable.parts_script", str(folder / "media"), url, str(photo)]
    with fork_server.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as script:
        options = ["-f", "-y", "-xx", "-s", "100000", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)]
        status = Path(f"/proc/{script.pid}/status")
        with subprocess.Popen(["strace", "-p", str(script.pid), *options], stderr=subprocess.DEVNULL) as tracer:
            eventually(lambda: "TracerPid:\t0\n" not in status.read_text(), "strace to attach")
            said, _ = script.communicate(timeout=60)
            assert tracer.wait(30) == 0
    assert script.returncode == 0, said
    return trace.read_text()


def test_what_was_acknowledged_outlives_the_power_at_any_moment_and_the_upload_goes_on(
    tmp_path: Path, sqlite_template: Path
) -> None:
    photo, live = tmp_path / "photo", tmp_path / "live"
    photo.write_bytes(PHOTO)
    live.mkdir()
    shutil.copy(sqlite_template, live / "detections.db")
    disk, upload, acknowledged, losses = Disk(live), "", 0, 0
    for call, arguments, result in calls(traced(live, photo)):
        if call == "write" and (said := re.match(rb"(upload|acknowledged) (\w+)\n", written(arguments))):
            if said[1] == b"upload":
                upload = said[2].decode()
            else:
                acknowledged = int(said[2])
        elif not disk.apply(call, arguments, result) or not upload:
            continue
        losses += 1
        after = tmp_path / f"loss {losses}"
        disk.leave(after)
        assert_goes_on(after, live, upload, acknowledged)
    assert acknowledged == len(PHOTO)
    assert losses > 10


def assert_goes_on(folder: Path, was: Path, upload: str, acknowledged: int) -> None:
    """The upload has what was acknowledged of it, and becomes the picture with the rest."""
    with closing(Database(f"sqlite:///{folder}/detections.db")) as database:
        with database.write_transaction() as session:  # the disk is looked at where it was not
            for row in session.query(ResumableUpload):
                moved = None if row.file is None else row.file.replace(str(was), str(folder))
                session.execute(update(ResumableUpload).where(ResumableUpload.id == row.id).values(file=moved))
        world = World(open_intake(folder / "media", database), Clock())
        found = world.find(upload)
        assert found.received >= acknowledged
        if found.state == "receiving":
            found = world.append(upload, found.received, PHOTO[found.received :])
        assert found.state == "complete"
        for media in world.intake.rows():
            path = Path(media.path.replace(str(was), str(folder)))
            assert path.read_bytes() == PHOTO
