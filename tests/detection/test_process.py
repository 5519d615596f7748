"""The detector process: what it survives, what it does not affect, and that it never outlives its parent."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import requests
from PIL import Image

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import MediaLimits, ProcessLimits, VideoLimits
from app.detection.protocol.events import Paused
from app.detection.results import FrameResult
from app.detection.sandbox import policy
from app.errors import (
    DetectorFailed,
    DetectorNotReady,
    MediaTooLarge,
    SettingsError,
    StoredFileUnreadable,
    Undecodable,
)
from app.runs.detector_process import DetectorProcess, FrameCount, Job, OpenFile
from app.settings.detector import DetectorOptions
from tests.detection.bombs import many_scans, png
from tests.detection.clips import Clip, without_pictures
from tests.detection.onnx_bytes import constant_model
from tests.eventually import eventually
from tests.long import later
from tests.paths import ROOT

pytestmark = pytest.mark.slow


def labels(process: DetectorProcess, job: Job) -> list[list[str]]:
    results = list(process.run(job))
    return [[found.label for found in result.objects] for result in results if isinstance(result, FrameResult)]


def every_frame(clip: Path) -> Job:
    return Job(clip, "Video", frame_interval=0.1)


@contextmanager
def started(
    limits: ProcessLimits, media_limits: MediaLimits | None = None, model: Path = BUILT_IN_MODEL
) -> Iterator[DetectorProcess]:
    process = DetectorProcess(model, media_limits, limits)
    try:
        yield process
    finally:
        process.close()


def state(pid: int) -> str:
    """Return R, S, T, Z… as in proc(5), or an empty text if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def running(pid: int) -> bool:
    return state(pid) not in {"", "Z"}


def hang(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state(pid) == "T")


def test_a_stored_picture_is_one_frame(detector_process: DetectorProcess, astronaut: Path) -> None:
    total, frame = detector_process.run(Job(astronaut, "Image", confidence=0.45))
    assert total == FrameCount(1)
    assert isinstance(frame, FrameResult)
    assert frame.index == 0
    assert frame.time == 0.0
    (found,) = frame.objects
    assert found.label == "person"
    assert found.center_x == pytest.approx(0.370, abs=0.005)


def test_bytes_in_memory_will_do_and_the_process_is_kept(detector_process: DetectorProcess, chelsea: Path) -> None:
    assert labels(detector_process, Job(chelsea.read_bytes(), "Image")) == [["cat"]]
    first = detector_process.pid
    assert labels(detector_process, Job(chelsea, "Image")) == [["cat"]]
    assert detector_process.pid == first


def test_an_open_file_is_processed_though_its_name_is_gone(
    detector_process: DetectorProcess, astronaut: Path, tmp_path: Path
) -> None:
    name = tmp_path / "picture"
    shutil.copy(astronaut, name)
    with name.open("rb") as file:
        name.unlink()
        assert labels(detector_process, Job(OpenFile(file.fileno()), "Image")) == [["person"]]
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]


@pytest.mark.parametrize("media_type", ["Image", "Video"])
def test_a_disk_that_refuses_to_be_read_is_not_taken_for_damage(
    detector_process: DetectorProcess, astronaut: Path, media_type: Literal["Image", "Video"]
) -> None:
    """Address 0 of this process's memory is unmapped, so that the kernel returns EIO."""
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(StoredFileUnreadable, match="Input/output error"):
        list(detector_process.run(Job(OpenFile(file.fileno()), media_type)))
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]


def test_a_detector_that_dies_before_it_has_its_model_is_not_ready(astronaut: Path) -> None:
    with started(ProcessLimits(memory_bytes=200 << 20)) as process, pytest.raises(DetectorNotReady):
        list(process.run(Job(astronaut, "Image")))


def test_a_job_that_was_begun_is_done_by_the_run_of_it(
    detector_process: DetectorProcess, astronaut: Path, tmp_path: Path
) -> None:
    name = tmp_path / "picture"
    shutil.copy(astronaut, name)
    with name.open("rb") as file:
        job = Job(OpenFile(file.fileno()), "Image")
        detector_process.begin(job)
    name.unlink()
    pid = detector_process.pid
    assert labels(detector_process, job) == [["person"]]
    assert detector_process.pid == pid


@pytest.mark.long
def test_a_job_that_was_begun_for_nothing_is_not_taken_for_the_next(
    detector_process: DetectorProcess, astronaut: Path, chelsea: Path
) -> None:
    detector_process.begin(Job(astronaut, "Image"))
    assert labels(detector_process, Job(chelsea, "Image")) == [["cat"]]
    detector_process.begin(Job(astronaut, "Image"))
    detector_process.load()
    assert labels(detector_process, Job(chelsea, "Image")) == [["cat"]]


def test_a_process_that_dies_of_what_was_begun_fails_the_run_of_it(
    detector_process: DetectorProcess, astronaut: Path
) -> None:
    detector_process.load()
    job, pid = Job(astronaut, "Image"), detector_process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    detector_process.begin(job)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DetectorFailed, match="SIGKILL"):
        labels(detector_process, job)
    assert labels(detector_process, job) == [["person"]]


def test_a_video_gives_its_total_and_then_every_frame_in_turn(detector_process: DetectorProcess, clip: Path) -> None:
    total, *frames = detector_process.run(Job(clip, "Video", frame_interval=0.5))
    assert total == FrameCount(6)
    assert [frame.index for frame in frames if isinstance(frame, FrameResult)] == [0, 1, 2, 3, 4, 5]
    assert detector_process.skipped == 0


def test_a_frame_with_nothing_on_it_is_reported_too(detector_process: DetectorProcess, clip: Path) -> None:
    assert labels(detector_process, Job(clip, "Video", confidence=1.0)) == [[]] * 6


@pytest.mark.long
def test_corrupt_packets_are_counted_for_each_video_anew(
    detector_process: DetectorProcess, clip: Path, tmp_path: Path, photo: Image.Image
) -> None:
    whole = Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes()
    labels(detector_process, Job(without_pictures(whole, range(3, 7)), "Video"))
    assert detector_process.skipped == 4
    with pytest.raises(Undecodable):
        labels(detector_process, Job(without_pictures(whole, range(30)), "Video"))
    assert detector_process.skipped == 30
    labels(detector_process, Job(clip, "Video"))
    assert detector_process.skipped == 0


@pytest.mark.long
def test_results_come_while_the_run_goes_on(detector_process: DetectorProcess, long_clip: Path) -> None:
    results = detector_process.run(Job(long_clip, "Video", frame_interval=0.3))
    assert next(results) == FrameCount(100)
    begun = time.monotonic()
    next(results)
    first = time.monotonic() - begun
    assert sum(1 for _ in results) == 99
    assert first < (time.monotonic() - begun) / 5


@pytest.mark.long
def test_a_video_pauses_under_the_sandbox_and_another_process_goes_on_with_the_very_next_frame(
    long_clip: Path, astronaut: Path
) -> None:
    job = Job(long_clip, "Video", frame_interval=0.3)
    options = DetectorOptions(sandbox="required" if policy.available(DetectorOptions()).is_complete else "auto")
    frames, position = [], None
    with closing(DetectorProcess(BUILT_IN_MODEL, options=options)) as process:
        for item in process.run(job):
            match item:
                case FrameResult():
                    frames.append(item)
                    process.pause()  # a second one has no effect
                case Paused():
                    position = item.position
        pid = process.pid
        assert labels(process, Job(astronaut, "Image")) == [["person"]]
        assert process.pid == pid
    assert position is not None
    assert 0 < len(frames) < 100
    with closing(DetectorProcess(BUILT_IN_MODEL, options=options)) as process:
        rest = [item for item in process.run(replace(job, position=position)) if isinstance(item, FrameResult)]
        whole = [item for item in process.run(job) if isinstance(item, FrameResult)]
    assert frames + rest == whole


def test_the_fault_of_a_media_is_told_and_the_process_kept(
    detector_process: DetectorProcess, astronaut: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(astronaut.read_bytes()[:200])
    with pytest.raises(Undecodable, match="picture"):
        list(detector_process.run(Job(broken, "Image")))
    first = detector_process.pid
    with pytest.raises(Undecodable):
        list(detector_process.run(Job(b"no video", "Video")))
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]
    assert detector_process.pid == first


def test_limits_hold_on_the_other_side(astronaut: Path, clip: Path) -> None:
    limits = MediaLimits(picture_pixels=512 * 512 - 1, video=VideoLimits(max_frames=5))
    with started(ProcessLimits(), limits) as process:
        with pytest.raises(MediaTooLarge, match="512 by 512"):
            list(process.run(Job(astronaut, "Image")))
        with pytest.raises(MediaTooLarge, match="5 sampled frames"):
            list(process.run(Job(clip, "Video")))


def test_a_file_that_is_gone_is_not_the_media_s_fault_and_its_place_is_not_told(
    detector_process: DetectorProcess, tmp_path: Path
) -> None:
    with pytest.raises(DetectorFailed, match="No such file") as raised:
        list(detector_process.run(Job(tmp_path / "gone.jpg", "Image")))
    assert str(tmp_path) not in str(raised.value)


def test_a_model_that_does_not_fit_is_told_when_it_is_loaded(tmp_path: Path) -> None:
    model = tmp_path / "unfit.onnx"
    model.write_bytes(constant_model(np.zeros((1, 9, 9), np.float32), (1, 3, 64, 64), metadata={"names": "['x']"}))
    with started(ProcessLimits(), model=model) as process, pytest.raises(SettingsError, match=r"unfit\.onnx"):
        process.load()


def test_loading_makes_the_process_ready(detector_process: DetectorProcess, astronaut: Path) -> None:
    detector_process.load()
    first = detector_process.pid
    assert first is not None
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]
    assert detector_process.pid == first


def test_a_process_killed_in_the_middle_of_a_job_fails_it_and_the_next_job_works(
    detector_process: DetectorProcess, long_clip: Path, astronaut: Path
) -> None:
    results = detector_process.run(every_frame(long_clip))
    assert len(list(itertools.islice(results, 3))) == 3
    killed = detector_process.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(DetectorFailed, match="SIGKILL"):
        list(results)
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]
    assert detector_process.pid != killed


def test_a_process_that_died_between_two_jobs_is_replaced_unnoticed(
    detector_process: DetectorProcess, astronaut: Path
) -> None:
    detector_process.load()
    killed = detector_process.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]


@pytest.mark.long
def test_a_process_that_hangs_fails_its_job_and_is_replaced(long_clip: Path, astronaut: Path) -> None:
    with started(ProcessLimits(stall_seconds=10, stop_seconds=0.2)) as process:
        process.load()
        results = process.run(every_frame(long_clip))
        next(results)
        hung = process.pid
        assert hung is not None
        hang(hung)
        with pytest.raises(DetectorFailed, match="no sign of life for 10 seconds"):
            list(results)
        assert not running(hung)
        assert labels(process, Job(astronaut, "Image")) == [["person"]]


@pytest.mark.long
def test_a_process_that_hangs_before_it_takes_a_large_job_does_not_hold_its_caller() -> None:
    with started(ProcessLimits(stall_seconds=10, stop_seconds=0.2)) as process:
        process.load()
        hung = process.pid
        assert hung is not None
        hang(hung)
        with pytest.raises(DetectorFailed, match="no sign of life"):
            list(process.run(Job(bytes(16 * 1024**2), "Image")))
        assert not running(hung)


@pytest.mark.long
def test_a_job_that_takes_too_long_is_the_media_s_fault(long_clip: Path, astronaut: Path) -> None:
    with started(ProcessLimits(run_seconds=3)) as process:
        process.load()
        with pytest.raises(MediaTooLarge, match="longer than 3 seconds"):
            list(process.run(every_frame(long_clip)))
        process.load()
        assert labels(process, Job(astronaut, "Image")) == [["person"]]


def test_leaving_a_run_early_ends_its_work(detector_process: DetectorProcess, long_clip: Path, astronaut: Path) -> None:
    results = detector_process.run(every_frame(long_clip))
    next(results)
    left = detector_process.pid
    assert left is not None
    results.close()
    assert not running(left)
    assert labels(detector_process, Job(astronaut, "Image")) == [["person"]]


def test_closing_ends_the_process_at_once_even_one_that_does_not_answer(detector_process: DetectorProcess) -> None:
    with started(ProcessLimits(stop_seconds=0.2)) as process:
        process.load()
        stopped = process.pid
        assert stopped is not None
        hang(stopped)
        process.close()
        assert not running(stopped)
        assert process.pid is None


@pytest.mark.long
def test_memory_that_a_media_asks_for_beyond_the_limit_costs_only_its_run(astronaut: Path) -> None:
    anything_goes = MediaLimits(picture_pixels=10**12)
    with started(ProcessLimits(memory_bytes=1024**3), anything_goes) as process:
        with pytest.raises(MediaTooLarge, match="memory"):
            list(process.run(Job(png(30_000, 30_000), "Image")))
        assert labels(process, Job(astronaut, "Image")) == [["person"]]


def test_the_model_and_the_decoders_fit_well_within_the_default_limit(
    detector_process: DetectorProcess, clip: Path, astronaut: Path
) -> None:
    labels(detector_process, Job(clip, "Video"))
    labels(detector_process, Job(astronaut, "Image"))
    status = Path(f"/proc/{detector_process.pid}/status").read_text()
    peak = int(status.split("VmPeak:")[1].split()[0]) * 1024
    assert peak < ProcessLimits().memory_bytes / 4


@pytest.mark.long
def test_an_interrupt_from_the_keyboard_is_left_to_the_parent(
    detector_process: DetectorProcess, long_clip: Path
) -> None:
    results = detector_process.run(every_frame(long_clip))
    next(results)
    next(results)
    child = detector_process.pid
    assert child is not None
    os.kill(child, signal.SIGINT)
    assert len(list(itertools.islice(results, 20))) == 20
    assert detector_process.pid == child


def test_the_process_makes_way_for_whoever_serves(detector_process: DetectorProcess) -> None:
    detector_process.load()
    assert detector_process.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, detector_process.pid) >= os.getpriority(os.PRIO_PROCESS, 0) + 5


def test_no_lock_of_the_parent_is_held_by_the_process(detector_process: DetectorProcess, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with path.open("wb") as upload, socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(upload.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        fcntl.flock(upload, fcntl.LOCK_EX)
        server_socket = f"socket:[{os.fstat(server.fileno()).st_ino}]"
        detector_process.load()
        folder = Path(f"/proc/{detector_process.pid}/fd")
        opened = {str(descriptor.readlink()) for descriptor in folder.iterdir()}
    assert str(path) not in opened
    assert server_socket not in opened
    with path.open("rb") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


PARENT = """
import sys, time
from pathlib import Path
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.runs.detector_process import DetectorProcess, Job

if __name__ == "__main__":
    process = DetectorProcess(BUILT_IN_MODEL)
    if sys.argv[1] == "busy":
        results = process.run(Job(Path(sys.argv[2]), "Video", frame_interval=0.1))
        next(results)
    else:
        process.load()
    print(process.pid, flush=True)
    for _ in results if sys.argv[1] == "busy" else ():
        pass
    time.sleep(60)
"""


@pytest.mark.parametrize("state", later(["busy"], "idle"))
def test_the_death_of_the_parent_ends_the_process(state: str, tmp_path: Path, long_clip: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    command = [sys.executable, str(program), state, str(long_clip)]
    with subprocess.Popen(command, cwd=ROOT, env=python_environment(), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert running(child)
        parent.kill()
    eventually(lambda: not running(child))


@pytest.mark.long
def test_under_gunicorn_the_service_is_not_run_again_in_the_process(tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        descriptor = listener.fileno()
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        command = [gunicorn, "--config", "python:tests.detection", "--worker-class", "gthread", "--threads", "2"]
        server = subprocess.Popen(
            [*command, "--bind", f"fd://{descriptor}", "tests.detection.wsgi_probe:application"],
            cwd=ROOT,
            env=python_environment(PROBE_IMPORTS=str(imports)),
            pass_fds=[descriptor],
        )
        try:
            told = requests.get(f"http://127.0.0.1:{port}/", timeout=60).json()
            opened = {str(one.readlink()) for one in Path(f"/proc/{told['detector']}/fd").iterdir()}
            listening = f"socket:[{os.fstat(descriptor).st_ino}]"
        finally:
            server.terminate()
            server.wait(30)
    assert told["labels"] == ["person"]
    assert imports.read_text().split() == [str(told["server"])]
    assert listening not in opened
    eventually(lambda: not running(told["detector"]))


@pytest.mark.long
def test_under_a_flask_command_the_service_is_not_run_again_in_the_process(tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    flask = Path(sys.executable).with_name("flask")
    done = subprocess.run(
        [flask, "--app", "tests.detection.wsgi_probe:flask_app", "probe"],
        cwd=ROOT,
        env=python_environment(PROBE_IMPORTS=str(imports)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = json.loads(done.stdout)
    assert told["labels"] == ["person"]
    assert imports.read_text().split() == [str(told["server"])]
    eventually(lambda: not running(told["detector"]))


def python_environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.long
def test_a_picture_that_is_decoded_without_end_fails_once_and_is_the_media_s_fault(astronaut: Path) -> None:
    assert ProcessLimits().picture_seconds == 20
    with started(ProcessLimits(picture_seconds=0.5)) as process:
        process.load()
        begun = time.monotonic()
        with pytest.raises(MediaTooLarge, match=r"more than 0\.5 seconds to decode"):
            list(process.run(Job(many_scans(3000, 4000), "Image")))
        assert time.monotonic() - begun < 20
        assert labels(process, Job(astronaut, "Image")) == [["person"]]


@pytest.mark.long
def test_the_time_for_decoding_ends_with_it(clip: Path) -> None:
    with started(ProcessLimits(picture_seconds=0.5)) as process:
        process.load()
        list(process.run(Job(many_scans(64, 1), "Image")))
        assert len(labels(process, every_frame(clip))) == 30
