"""The demo as people run it: what it shows, that it fails aloud, and that it leaves nothing behind."""

import os
import re
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from app.demo.folder import DemoFolder
from app.demo.picture import write_picture
from app.process import temp_folders
from tests.demo.demo_run import Run, assert_nothing_left, processes_of, run_demo, started
from tests.eventually import eventually
from tests.paths import ROOT

pytestmark = pytest.mark.slow

PHOTOS = ROOT / "app" / "demo" / "media"


def arrivals(output: str) -> list[tuple[int, int]]:
    """Status and number of each message, in the order in which their arrival was told."""
    return [(int(status), int(seq)) for status, seq in re.findall(r"arrived: (\d) \w+ +seq (\d+)", output)]


@pytest.fixture(scope="module")
def performance(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One whole demo."""
    return run_demo(tmp_path_factory.mktemp("demo"))


def test_the_demo_succeeds_whatever_the_environment_has_for_other_services(performance: Run) -> None:
    assert performance.exit_code == 0, performance.output + performance.messages
    assert performance.messages == ""
    assert len(performance.output.rpartition("\n\n")[2].splitlines()) == 3


def test_it_tells_of_every_status_in_order_before_and_after_the_outage(performance: Run) -> None:
    one, two = performance.output.split("Act two")
    assert arrivals(one) == [(1, 1), (2, 2), (3, 3)]
    assert arrivals(two) == [(1, 1), (2, 2), (3, 3)]
    assert "person" in one
    assert "cat" in two


def test_the_backlog_waits_through_the_outage_and_is_delivered_after_it(performance: Run) -> None:
    during, after = performance.output.split("start the annotations service again")
    assert re.search("pending 3, parked 0, circuit (open|half-open)", during)
    assert '"pending": 3' in during
    assert '"pending": 0, "delivered": 3' in after


def test_piped_output_has_no_control_characters(performance: Run) -> None:
    assert performance.output.replace("\n", "").isprintable()


def test_the_picture_shows_both_photos_with_boxes(performance: Run) -> None:
    with Image.open(performance.picture) as picture, Image.open(PHOTOS / "astronaut.jpg") as photo:
        assert picture.width > photo.width
        assert picture.height == photo.height
        edge = round((0.370 - 0.681 / 2) * photo.width)  # where the model's page says that the person begins
        drawn = {picture.getpixel((x, 300)) for x in range(edge - 4, edge + 5)}
        there = {photo.getpixel((x, 300)) for x in range(edge - 4, edge + 5)}
        assert drawn - there


def test_success_leaves_no_process_and_no_folder_behind(performance: Run) -> None:
    assert_nothing_left(performance.scratch)


@pytest.mark.long
def test_a_service_that_refuses_to_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    run = run_demo(tmp_path, "--model", tmp_path / "missing.onnx")
    assert run.exit_code == 1
    assert "this step failed: start the service under gunicorn" in run.messages
    assert "DETECTOR_MODEL must name a file" in run.messages
    assert not run.picture.exists()
    assert_nothing_left(run.scratch)


@pytest.mark.long
def test_a_process_that_dies_on_the_way_is_named_with_the_step(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, until="under gunicorn") as demo:
        assert demo.stderr
        [annotations] = processes_of(scratch, "app.demo.annotations")
        os.kill(annotations, signal.SIGKILL)
        messages = demo.stderr.read()
    assert demo.returncode == 1
    assert "this step failed: upload astronaut.jpg to POST /detect" in messages
    assert f"annotations.log (process {annotations}, which has ended with exit code -9)" in messages
    assert_nothing_left(scratch)


@pytest.mark.long
def test_a_killed_demo_s_folder_goes_with_the_next_demo_once_its_servers_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, until="under gunicorn") as killed:
        killed.kill()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    [left] = scratch.glob("detections-demo-*")
    servers = processes_of(scratch)
    assert servers
    DemoFolder.temporary().remove()
    assert left.exists()

    def is_clear() -> bool:
        for server in processes_of(scratch):  # those too that began after the demo was killed
            with suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)
        DemoFolder.temporary().remove()
        temp_folders.sweep("detections-metrics-")
        return not any(scratch.iterdir())  # a killed process is out of sight before it lets go of its files

    eventually(is_clear)
    assert_nothing_left(scratch)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_everything_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    with started(scratch, until="under gunicorn") as demo:
        assert demo.stderr
        demo.send_signal(number)
        messages = demo.stderr.read()
    assert demo.returncode == 128 + number
    assert number.name in messages
    assert_nothing_left(scratch)


@pytest.mark.long
def test_a_large_upload_survives_three_cuts_and_a_kill(tmp_path: Path) -> None:
    run = run_demo(tmp_path, "--resumable")
    assert run.exit_code == 0, run.output + run.messages
    offsets = [int(told.replace(",", "")) for told in re.findall(r"Upload-Offset ([\d,]+)", run.output)]
    assert len(offsets) == 4
    assert offsets == sorted(offsets)
    assert "the same bytes" in run.output
    assert_nothing_left(run.scratch)


@pytest.mark.long
def test_a_picture_of_no_known_kind_is_refused_before_anything_starts(tmp_path: Path) -> None:
    run = run_demo(tmp_path, "--out", tmp_path / "boxes.txt")
    assert run.exit_code == 2
    assert "--out boxes.txt" in run.messages
    assert run.output == ""


def test_boxes_are_drawn_on_the_upright_photo(tmp_path: Path) -> None:
    lying = Image.new("RGB", (200, 100), "white")
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned by a quarter: upright it is 100 wide and 200 high
    lying.save(tmp_path / "photo.jpg", exif=exif)
    box = {"classNum": 0, "label": "", "confidence": 1.0, "centerX": 0.5, "centerY": 0.75, "width": 0.6, "height": 0.3}
    write_picture(tmp_path / "boxes.png", [(tmp_path / "photo.jpg", [box])])
    with Image.open(tmp_path / "boxes.png") as picture:
        assert picture.size == (100, 200)
        assert picture.getpixel((20, 150)) != (255, 255, 255)  # the left edge, a fifth into the width
        assert picture.getpixel((50, 150)) == (255, 255, 255)
        assert picture.getpixel((50, 60)) == (255, 255, 255)
