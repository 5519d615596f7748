"""The sandbox of detectors as an operator sees it: what is in force, and what a kernel without it leads to."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.detection.sandbox.policy import available
from app.settings import DetectorOptions
from tests.detection.kernels import LANDLOCK, SECCOMP
from tests.paths import ROOT
from tests.system.service import SECRET, Service, surroundings

PHOTO = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
OFFERED = available(DetectorOptions())

pytestmark = pytest.mark.skipif(not OFFERED.is_complete, reason="this kernel offers no Landlock or no seccomp")


def without(number: int) -> tuple[str, ...]:
    """What to put before a command, to have it run as on a kernel that lacks a system call."""
    return sys.executable, "-m", "tests.detection.kernels", str(number)


@pytest.fixture
def stopped_service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, None)
    yield service
    service.stop()
    service.kill()


def lines_about_it(service: Service) -> list[dict[str, object]]:
    lines = [line for line in service.log.read_text().splitlines() if "detector_sandbox" in line]
    return [json.loads(line) for line in lines]


def in_force(service: Service) -> tuple[dict[str, bool], set[str]]:
    """What `/readyz` and `/metrics` say."""
    metrics = service.request("GET", "/metrics").text.splitlines()
    figures = {line for line in metrics if line.startswith("detections_detector_sandbox{")}
    return service.request("GET", "/readyz").json()["detectorSandbox"], figures


def test_what_is_in_force_is_told_and_holds_for_a_run(stopped_service: Service) -> None:
    service = stopped_service
    service.environment["DETECTOR_SANDBOX"] = "required"
    service.start("--workers", "2")
    assert service.upload("/detect", PHOTO).json()["annotations"]
    assert in_force(service) == (
        {"files": True, "systemCalls": True},
        {'detections_detector_sandbox{part="files"} 1.0', 'detections_detector_sandbox{part="system_calls"} 1.0'},
    )
    assert lines_about_it(service) == []


@pytest.mark.long
@pytest.mark.parametrize(("number", "holds"), [(LANDLOCK, (False, True)), (SECCOMP, (True, False))])
def test_where_the_kernel_has_less_it_goes_on_and_says_so_once(
    number: int, holds: tuple[bool, bool], stopped_service: Service
) -> None:
    service = stopped_service
    service.start("--workers", "2", wrapper=without(number))
    assert service.upload("/detect", PHOTO).json()["annotations"]
    told, _figures = in_force(service)
    assert (told["files"], told["systemCalls"]) == holds
    [line] = lines_about_it(service)
    assert ("Landlock" in str(line["missing"])) is not holds[0]


@pytest.mark.long
@pytest.mark.parametrize("number", [LANDLOCK, SECCOMP])
def test_where_it_is_required_and_the_kernel_has_less_nothing_starts(number: int, tmp_path: Path) -> None:
    settings = {"DETECTOR_SANDBOX": "required", "JWT_SECRET_KEY": SECRET}
    for command in (("gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0"), ("flask", "detect", "file", PHOTO)):
        ended = subprocess.run(
            [*without(number), sys.executable, "-m", *command],
            cwd=ROOT,
            env=surroundings() | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode != 0
        assert "DETECTOR_SANDBOX is required, but" in ended.stderr.splitlines()[-1]


def test_nobody_but_root_can_look_into_the_server_and_its_workers(stopped_service: Service) -> None:
    service = stopped_service.start()
    assert service.process is not None
    server = service.process.pid
    workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    assert workers
    for pid in (server, *workers):  # the kernel gives what belongs to a process that is not dumpable to root
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        if os.geteuid() == 0:
            as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "cat", f"/proc/{pid}/environ"]
            assert subprocess.run(as_nobody, capture_output=True, check=False).returncode != 0
        else:
            with pytest.raises(PermissionError):
                Path(f"/proc/{pid}/environ").read_bytes()


def test_the_detector_has_no_secret_and_no_helper_beside_it(stopped_service: Service) -> None:
    service = stopped_service.start()
    assert service.upload("/detect", PHOTO).json()["annotations"]
    assert service.process is not None
    [worker] = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    [detector] = "".join(one.read_text() for one in Path(f"/proc/{worker}/task").glob("*/children")).split()
    environment = Path(f"/proc/{detector}/environ").read_bytes().split(b"\0")
    assert {one.partition(b"=")[0] for one in environment} <= {
        b"",
        b"OPENBLAS_NUM_THREADS",
        b"LD_LIBRARY_PATH",
        b"LC_CTYPE",
    }
