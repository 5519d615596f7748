"""`flask media`: ids of files, and recovery after crashes."""

import json
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.media.hashing import media_id_of_bytes
from app.runs.lifecycle import RunRequest
from tests.api.conftest import picture, settings_in
from tests.cli.conftest import Shell
from tests.cli.terminal import on_terminal

WANTED = RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5)
NOTHING = {"runs": 0, "leftovers": 0, "orphans": 0}
SOUND = {
    "findings": [],
    "checked": 0,
    "recorded": 0,
    "missing": 0,
    "changed": 0,
    "unreadable": 0,
    "orphaned": 0,
    "unchecked": 0,
}


def media(shell: Shell, media_id: str) -> Any:
    return shell.api.get(f"/media/{media_id}").json


def test_the_ids_of_files_are_printed_beside_their_names(lonely_shell: Shell, tmp_path: Path) -> None:
    files = [tmp_path / "one.jpg", tmp_path / "two words.bin", tmp_path / "empty"]
    for file, content in zip(files, (picture(1), bytes(5000), b""), strict=True):
        file.write_bytes(content)
    ids = [media_id_of_bytes(file.read_bytes()) for file in files]
    table = lonely_shell.run("media", "hash", *map(str, files)).stdout
    assert table.splitlines() == [f"{media_id}  {file}" for media_id, file in zip(ids, files, strict=True)]
    assert lonely_shell.json("media", "hash", *map(str, files)) == [
        {"id": media_id, "file": str(file)} for media_id, file in zip(ids, files, strict=True)
    ]


def test_the_id_of_a_file_is_the_one_that_its_upload_gets(lonely_shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(2))
    [told] = lonely_shell.json("media", "hash", str(tmp_path / "a.jpg"))
    assert told["id"] == lonely_shell.upload(2)


def test_a_file_that_is_not_there_has_no_id(lonely_shell: Shell, tmp_path: Path) -> None:
    result = lonely_shell.run("media", "hash", str(tmp_path / "nowhere"), exit_code=2)
    assert result.stdout == ""


def test_recovery_has_nothing_to_do_where_nothing_happened(lonely_shell: Shell) -> None:
    lonely_shell.upload(1)
    assert lonely_shell.json("media", "recover") == NOTHING
    assert lonely_shell.json("media", "recover") == NOTHING


def test_recovery_removes_what_a_cut_off_upload_left(lonely_shell: Shell) -> None:
    images = lonely_shell.api.images
    media_id = lonely_shell.upload(1)
    (images / ".incoming" / "cut-off").write_bytes(b"half a picture")
    orphan = images / f"{media_id_of_bytes(picture(2))}.jpg"
    orphan.write_bytes(picture(2))
    (images / ".incoming" / "published").hardlink_to(orphan)
    stranger = images / "somebody-elses.jpg"
    stranger.write_bytes(b"untouched")
    assert lonely_shell.json("media", "recover") == {"runs": 0, "leftovers": 2, "orphans": 1}
    assert lonely_shell.api.leftovers() == []
    assert lonely_shell.api.stored() == {f"{media_id}.jpg", stranger.name}
    assert lonely_shell.json("media", "recover") == NOTHING


@pytest.mark.long
def test_recovery_takes_over_a_run_whose_process_died(lonely_shell: Shell) -> None:
    media_id = lonely_shell.upload(1)
    runs = lonely_shell.api.services.runs
    runs.lease_seconds = 1.0
    runs.start_new(media_id, WANTED)
    assert runs.claim("a process that died")
    assert media(lonely_shell, media_id)["mediaStatus"] == 2
    result = lonely_shell.run("media", "recover", "--json")
    assert '"runs": 1' in result.stdout
    assert "leases" in result.stderr
    told = media(lonely_shell, media_id)
    assert told["mediaStatus"] == 3
    assert told["run"]["state"] == "done"
    assert told["delivery"]["pending"] == 3


@pytest.mark.long
def test_recovery_finishes_runs_that_nobody_began(lonely_shell: Shell) -> None:
    first, second = lonely_shell.upload(1), lonely_shell.upload(2)
    for media_id in (first, second):
        lonely_shell.api.services.runs.start_new(media_id, WANTED)
    assert lonely_shell.json("media", "recover")["runs"] == 2
    assert [media(lonely_shell, media_id)["mediaStatus"] for media_id in (first, second)] == [3, 3]


def test_recovery_fails_no_run_for_a_model_that_does_not_fit(tmp_path: Path, sqlite_template: Path) -> None:
    model = tmp_path / "own.onnx"
    model.write_bytes(b"no model")
    shell = Shell(settings_in(tmp_path / "unfit", sqlite_template, None, {"DETECTOR_MODEL": str(model)}))
    media_id = shell.upload(1)
    shell.api.services.runs.start_new(media_id, WANTED)
    result = shell.run("media", "recover", exit_code=1)
    assert "own.onnx" in result.output
    assert media(shell, media_id)["run"]["state"] == "queued"
    shell.api.close()


def test_recovery_leaves_a_run_to_a_process_that_lives(lonely_shell: Shell) -> None:
    media_id = lonely_shell.upload(1)
    runs = lonely_shell.api.services.runs
    runs.lease_seconds = 1.0
    runs.start_new(media_id, WANTED)
    claimed = runs.claim("a process that lives")
    assert claimed is not None
    over = threading.Event()

    def keep_alive() -> None:
        while not over.wait(0.2):
            assert runs.renew(claimed)

    alive = threading.Thread(target=keep_alive)
    alive.start()
    try:
        assert lonely_shell.json("media", "recover") == NOTHING
    finally:
        over.set()
        alive.join()
    assert runs.finish(claimed, [])


def test_verify_says_that_all_is_well(lonely_shell: Shell) -> None:
    lonely_shell.upload(1)
    assert lonely_shell.json("media", "verify") == SOUND | {"checked": 1}
    result = lonely_shell.run("media", "verify")
    assert "checked" in result.stdout
    assert result.stderr == ""


def test_verify_lists_damage_and_ends_with_5(lonely_shell: Shell) -> None:
    lost, changed, sound = (lonely_shell.upload(number) for number in (1, 2, 3))
    (lonely_shell.api.images / f"{lost}.jpg").unlink()
    (lonely_shell.api.images / f"{changed}.jpg").write_bytes(b"other")
    found = lonely_shell.json("media", "verify", exit_code=5)
    assert {(row["problem"], row["mediaId"]) for row in found["findings"]} == {("missing", lost), ("changed", changed)}
    assert found["missing"] == 1
    assert found["changed"] == 1
    assert found["checked"] == 1
    table = lonely_shell.run("media", "verify", exit_code=5).stdout
    assert lost in table
    assert changed in table
    assert sound not in table
    assert lonely_shell.json("media", "verify", "--id", sound) == SOUND | {"checked": 1}
    assert lonely_shell.json("media", "verify", "--id", sound, "--id", lost, exit_code=5)["missing"] == 1


def test_verify_lists_files_of_any_name_on_one_line_each(lonely_shell: Shell) -> None:
    lonely_shell.upload(1)
    for name in (b"latin \xe9.jpg", b"two\nlines.jpg", b"red \x1b[31m.jpg"):
        Path(os.fsdecode(os.fsencode(lonely_shell.api.images) + b"/" + name)).touch()
    assert lonely_shell.json("media", "verify")["orphaned"] == 3
    told = lonely_shell.run("media", "verify").stdout
    assert len([line for line in told.splitlines() if line.startswith("orphaned")]) == 3
    assert "\x1b" not in told


def test_verify_of_an_unknown_media_ends_with_4(lonely_shell: Shell) -> None:
    assert "0000000000000000" in lonely_shell.run("media", "verify", "--id", "0" * 16, exit_code=4).stderr


def test_orphans_alone_are_listed_but_no_damage(lonely_shell: Shell) -> None:
    stranger = lonely_shell.api.images / "somebody-elses.jpg"
    lonely_shell.api.services.folders.open()
    stranger.write_bytes(b"untouched")
    found = lonely_shell.json("media", "verify")
    assert [(row["problem"], row["path"]) for row in found["findings"]] == [("orphaned", str(stranger))]
    assert stranger.exists()


def test_progress_on_a_terminal_leaves_the_results_to_standard_output(lonely_shell: Shell, tmp_path: Path) -> None:
    lost = lonely_shell.upload(1)
    (lonely_shell.api.images / f"{lost}.jpg").unlink()
    code, shown = on_terminal(
        "media", "verify", "--json", environment=lonely_shell.settings, output=tmp_path / "found.json"
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 5
    assert [row["mediaId"] for row in found["findings"]] == [lost]
    assert "reading back" in shown
    assert lost not in shown


def test_relocate_moves_rows_and_ends_with_5_where_files_are_not_there(lonely_shell: Shell, tmp_path: Path) -> None:
    images, new = lonely_shell.api.images, tmp_path / "other disk"
    here, lost = lonely_shell.upload(1), lonely_shell.upload(2)
    images.rename(new)
    file = (new / f"{lost}.jpg").rename(tmp_path / "lost.jpg")
    shell = Shell(lonely_shell.settings | {"IMAGES_DIR": str(new)})
    with closing(shell.api):
        told = shell.json("media", "relocate", str(images), str(new), exit_code=5)
        assert told["moved"] == 1
        assert [row["mediaId"] for row in told["left"]] == [lost]
        file.rename(new / f"{lost}.jpg")
        assert "moved 1, left 0" in shell.run("media", "relocate", str(images), str(new)).stdout
        assert shell.json("media", "verify", "--id", here, "--id", lost)["checked"] == 2
