"""What is told of runs that a fault of the house keeps: in the record, at /readyz and in the metrics."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.api.conftest import Api, MakeApi, picture
from tests.api.test_health import figures, not_ready

ASYNC = {"Prefer": "respond-async"}


def record(api: Api, media_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.get(f"/media/{media_id}").text)
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def media_id_of(answer: Any) -> str:
    return str(answer.json["media"]["id"])


def test_a_missing_file_is_told_for_its_item_alone(api: Api) -> None:
    media_id = media_id_of(api.upload("/media", picture(1)))
    (api.images / f"{media_id}.jpg").unlink()
    assert api.request("POST", f"/detect/{media_id}", headers=ASYNC).status_code == 202
    until(lambda: record(api, media_id)["run"]["waitingFor"] is not None)
    shown = record(api, media_id)
    assert f"{media_id}.jpg is missing" in shown["run"]["waitingFor"]
    assert (shown["run"]["state"], shown["mediaStatus"]) == ("queued", 2)
    assert figures(api)["detections_missing_files"] == 1
    assert api.app.test_client().get("/readyz").status_code == 200
    # A person may give it up.
    assert api.request("DELETE", f"/media/{media_id}/run").status_code == 204
    shown = record(api, media_id)
    assert (shown["run"]["waitingFor"], shown["mediaStatus"]) == (None, 6)
    assert figures(api)["detections_missing_files"] == 0


def test_what_keeps_all_detection_is_told_for_every_run_and_makes_it_not_ready(
    make_api: MakeApi, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    api = make_api(DETECTOR_MODEL=str(tmp_path / "model.onnx"))
    first = media_id_of(api.upload("/detect", picture(1), headers=ASYNC))
    until(lambda: record(api, first)["run"]["waitingFor"] is not None)
    second = media_id_of(api.upload("/detect", picture(2), headers=ASYNC))
    for media_id in (first, second):
        assert "model.onnx" in record(api, media_id)["run"]["waitingFor"]
        assert record(api, media_id)["mediaStatus"] in (1, 2)
    assert "detection waits" in not_ready(api)
    assert api.upload("/detect?persist=false", picture(3)).status_code == 503
    samples = api.app.test_client().get("/metrics").text
    assert 'detections_house_faults{kind="model"} 1.0' in samples


def test_a_lost_file_that_is_sent_again_is_put_back_and_its_run_goes_on(api: Api) -> None:
    content = picture(4)
    media_id = media_id_of(api.upload("/media", content))
    (api.images / f"{media_id}.jpg").unlink()
    assert api.request("POST", f"/detect/{media_id}", headers=ASYNC).status_code == 202
    until(lambda: record(api, media_id)["run"]["waitingFor"] is not None)
    answer = api.upload("/detect", content, user="bob")
    assert answer.status_code == 200
    assert answer.json is not None
    assert (answer.json["duplicate"], answer.json["media"]["mediaStatus"]) == (True, 3)
    assert (api.images / f"{media_id}.jpg").read_bytes() == content
