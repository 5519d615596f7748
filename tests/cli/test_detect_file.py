"""`flask detect file` with an empty environment, on valid and invalid files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from app import create_command_app
from tests.cli.terminal import on_terminal
from tests.detection.clips import Clip
from tests.detection.onnx_bytes import constant_model
from tests.paths import ROOT

pytestmark = pytest.mark.slow

PHOTOS = ROOT / "app" / "demo" / "media"
ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"
RED = (230, 25, 75)


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Path]:
    """A working directory in which nothing can be created."""
    folder = tmp_path / "nowhere"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def started(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `flask …` as a process, in an environment without settings."""
    kept = {"PATH", "LD_LIBRARY_PATH", "LANG"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    command = [sys.executable, "-m", "flask", "--app", str(ROOT / "wsgi.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=90, check=False)


def flask(*arguments: object, exit_code: int = 0, **settings: str) -> Result:
    """Run `flask …` in this process, with these settings."""
    runner = create_command_app().test_cli_runner(env=settings)
    result = runner.invoke(args=[str(argument) for argument in arguments])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result


def detected(*arguments: object, exit_code: int = 0, **settings: str) -> Any:
    """Return what `flask detect file … --json` prints."""
    return json.loads(flask("detect", "file", *arguments, "--json", exit_code=exit_code, **settings).stdout)


def test_pictures_are_processed_without_any_setting_and_nothing_is_made(nowhere: Path) -> None:
    done = started("detect", "file", ASTRONAUT, CHELSEA, folder=nowhere)
    assert done.returncode == 0
    assert done.stderr == ""
    head, person, cat = (line.split() for line in done.stdout.splitlines())
    assert head[:5] == ["file", "frame", "time", "label", "confidence"]
    assert person == [str(ASTRONAUT), "0", "0.00", "person", "0.73", "0.029", "0.028", "0.711", "0.992"]
    assert cat[3] == "cat"


def test_one_document_tells_all_as_the_api_does() -> None:
    told = detected(ASTRONAUT)
    assert told["detector"] == "nanodet_g_416-1059021c7fa8"
    (file,) = told["files"]
    assert {name: file[name] for name in ("file", "mediaType", "error", "frames", "packetsSkipped", "warnings")} == {
        "file": str(ASTRONAUT),
        "mediaType": "Image",
        "error": None,
        "frames": 1,
        "packetsSkipped": 0,
        "warnings": [],
    }
    ((found,),) = (frame["detections"] for frame in file["annotations"])
    assert found == {
        "classNum": 0,
        "label": "person",
        "confidence": pytest.approx(0.73, abs=0.01),
        "centerX": pytest.approx(0.370, abs=0.005),
        "centerY": pytest.approx(0.510, abs=0.005),
        "width": pytest.approx(0.681, abs=0.005),
        "height": pytest.approx(0.964, abs=0.005),
    }


def test_a_damaged_picture_is_processed_and_what_is_missing_is_said(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(ASTRONAUT.read_bytes()[:-2])
    result = flask("detect", "file", cut, "--json")
    (file,) = json.loads(result.stdout)["files"]
    assert file["warnings"] == ["the picture ends early, but all its rows are there"]
    assert [found["label"] for frame in file["annotations"] for found in frame["detections"]] == ["person"]
    assert result.stderr == f"{cut}: {file['warnings'][0]}\n"


@pytest.mark.long
def test_a_video_is_sampled_as_asked_and_its_fullest_frame_drawn(tmp_path: Path) -> None:
    clip = Clip("clip.mp4").write(tmp_path, Image.open(ASTRONAUT).convert("RGB"))
    target = tmp_path / "frame.png"
    told = detected(clip, "--frame-interval", "1", "--draw", target)
    assert told["files"][0]["frames"] == 3
    assert [frame["time"] for frame in told["files"][0]["annotations"]] == [0.0, 1.0, 2.0]
    assert [frame["sourceFrame"] for frame in told["files"][0]["annotations"]] == [0, 10, 20]
    with Image.open(target) as drawn:
        assert drawn.format == "PNG"
        assert drawn.size == (320, 240)
        assert red_pixels(drawn) > 200


def test_the_picture_is_drawn_with_its_boxes_where_they_are(tmp_path: Path) -> None:
    target = tmp_path / "drawn.png"
    (file,) = detected(ASTRONAUT, "--draw", target)["files"]
    (found,) = file["annotations"][0]["detections"]
    with Image.open(target) as drawn, Image.open(ASTRONAUT) as photo:
        assert drawn.size == photo.size
        right = round((found["centerX"] + found["width"] / 2) * 511)
        assert all(drawn.getpixel((right - 1, y)) == RED for y in range(40, 480))
        assert drawn.getpixel((200, 200)) == photo.getpixel((200, 200))


def test_a_picture_that_lies_on_its_side_is_drawn_upright(tmp_path: Path) -> None:
    sideways = tmp_path / "sideways.jpg"
    with Image.open(ASTRONAUT) as photo:
        exif = photo.getexif()
        exif[0x0112] = 6
        photo.crop((0, 0, 512, 300)).rotate(90, expand=True).save(sideways, exif=exif, quality=95)
    detected(sideways, "--draw", tmp_path / "drawn.webp")
    with Image.open(tmp_path / "drawn.webp") as drawn:
        assert drawn.size == (512, 300)


def test_a_file_that_fails_leaves_the_others_to_be_done(tmp_path: Path) -> None:
    broken, renamed, text = (tmp_path / name for name in ("broken.jpg", "renamed.png", "notes.txt"))
    broken.write_bytes(ASTRONAUT.read_bytes()[:200])
    renamed.write_bytes(CHELSEA.read_bytes())
    text.write_text("notes")
    told = detected(broken, ASTRONAUT, renamed, text, exit_code=1)
    assert [bool(file["error"]) for file in told["files"]] == [True, False, True, True]
    assert "damaged" in told["files"][0]["error"]
    assert "JPEG" in told["files"][2]["error"]
    assert '".txt"' in told["files"][3]["error"]
    assert told["files"][1]["annotations"][0]["detections"][0]["label"] == "person"


@pytest.mark.long
def test_a_name_that_means_something_to_a_terminal_is_only_a_name(tmp_path: Path) -> None:
    odd = tmp_path / "{task} [red] :smile:.jpg"
    odd.write_bytes(ASTRONAUT.read_bytes())
    code, bar = on_terminal("detect", "file", str(odd), output=tmp_path / "found")
    assert code == 0, bar
    assert str(odd) in (tmp_path / "found").read_text()
    assert odd.name in bar
    assert "1/1" in bar


def test_a_long_name_leaves_room_for_the_bar(tmp_path: Path) -> None:
    long = tmp_path / f"{'long ' * 20}.jpg"
    long.write_bytes(ASTRONAUT.read_bytes())
    code, told = on_terminal("detect", "file", str(long), columns=80)
    assert code == 0
    assert re.search(r"long long.*….*1/1", told)


def test_what_failed_is_said_on_standard_error_and_stands_in_the_table(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    done = flask("detect", "file", broken, "--draw", tmp_path / "none.png", exit_code=1)
    assert done.stdout.splitlines()[1].split() == [str(broken), "failed"]
    assert done.stderr.startswith(f"{broken}: ")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.long
def test_the_confidence_asked_for_goes_before_the_setting() -> None:
    nothing = flask("detect", "file", ASTRONAUT, DETECTOR_CONFIDENCE="0.9").stdout
    assert "no detections" in nothing
    found = detected(ASTRONAUT, "--confidence", "0.3", DETECTOR_CONFIDENCE="0.9")["files"][0]["annotations"]
    assert len(found[0]["detections"]) > 1


def test_a_model_of_one_s_own_is_run_with_its_labels_and_tiles(tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    middle = np.array([[[16, 16, 48, 48, 0.9, 0]]], dtype=np.float32)
    model.write_bytes(constant_model(middle, (1, 3, 64, 64)))
    told = detected(ASTRONAUT, DETECTOR_MODEL=str(model), DETECTOR_LABELS="thing", DETECTOR_TILE="300")
    assert told["detector"].startswith("own-")
    assert told["detector"].endswith("-tile300")
    labels = [found["label"] for found in told["files"][0]["annotations"][0]["detections"]]
    assert set(labels) == {"thing"}
    assert len(labels) > 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DETECTOR_MODEL": str(ROOT / "wsgi.py")}, "the model 'wsgi.py' does not fit: expected an ONNX model"),
        ({"DETECTOR_TILE": "tiny"}, "DETECTOR_TILE must be a whole number"),
        ({"DETECTOR_PROVIDER": "cuda"}, "DETECTOR_PROVIDER is cuda"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(settings: dict[str, str], words: str) -> None:
    done = flask("detect", "file", ASTRONAUT, exit_code=1, **settings)
    [line] = done.output.splitlines()
    assert line.startswith(f"Error: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "PATH"),
        (["/there/is/no.jpg"], "no.jpg"),
        ([ASTRONAUT, CHELSEA, "--draw", "out.png"], "one file, not 2"),
        ([ASTRONAUT, "--draw", "out.gif"], ".png"),
        ([ASTRONAUT, "--draw", ASTRONAUT], "overwrite"),
        ([ASTRONAUT, "--draw", "/there/is/no/out.png"], "folder"),
        ([ASTRONAUT, "--confidence", "0"], "at most 1"),
        ([ASTRONAUT, "--confidence", "nan"], "at most 1"),
        ([ASTRONAUT, "--frame-interval", "-1"], "more than 0"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_done(arguments: list[object], words: str) -> None:
    done = flask("detect", "file", *arguments, exit_code=2)
    assert done.stdout == ""
    assert words in done.stderr


@pytest.mark.long
def test_commands_that_need_the_service_still_name_the_missing_key(nowhere: Path) -> None:
    for command, speaker in ((("outbox", "status"), "Error"), (("routes",), "detections")):
        done = started(*command, folder=nowhere)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith(f"{speaker}: Set exactly one of JWT_SECRET_KEY")


@pytest.mark.long
def test_the_commands_are_listed_without_any_setting(nowhere: Path) -> None:
    done = started("--help", folder=nowhere)
    assert done.returncode == 0
    assert {"detect", "media", "outbox"} <= {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert "PATH..." in flask("detect", "file", "--help").stdout


def red_pixels(image: Image.Image) -> int:
    return int((np.asarray(image.convert("RGB")) == RED).all(axis=2).sum())
