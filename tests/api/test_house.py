"""Runs that wait because of a fault of the service: in the record, at /readyz and in the metrics."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.process import revision
from app.process.version import VERSION
from tests.api.conftest import Api, MakeApi, picture
from tests.api.test_health import metrics, not_ready
from tests.eventually import eventually
from tests.paths import ROOT

ALERTS = ROOT / "docs" / "deploy" / "alerts.yml"
OPERATIONS = ROOT / "docs" / "operations.md"
ASYNC = {"Prefer": "respond-async"}


def record(api: Api, media_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.get(f"/media/{media_id}").text)
    return found


def media_id_of(answer: Any) -> str:
    return str(answer.json["media"]["id"])


def test_a_missing_file_is_told_for_its_item_alone(api: Api) -> None:
    media_id = media_id_of(api.upload("/media", picture(1)))
    (api.images / f"{media_id}.jpg").unlink()
    assert api.request("POST", f"/detect/{media_id}", headers=ASYNC).status_code == 202
    eventually(lambda: record(api, media_id)["run"]["waitingFor"] is not None)
    shown = record(api, media_id)
    assert f"{media_id}.jpg is missing" in shown["run"]["waitingFor"]
    assert shown["run"]["state"] == "queued"
    assert shown["mediaStatus"] == 2
    assert metrics(api)["detections_missing_files"] == 1
    assert api.app.test_client().get("/readyz").status_code == 200
    # A person may cancel it.
    assert api.request("DELETE", f"/media/{media_id}/run").status_code == 204
    shown = record(api, media_id)
    assert shown["run"]["waitingFor"] is None
    assert shown["mediaStatus"] == 6
    assert metrics(api)["detections_missing_files"] == 0


def test_what_keeps_all_detection_is_told_for_every_run_and_makes_it_not_ready(
    make_api: MakeApi, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    api = make_api(DETECTOR_MODEL=str(tmp_path / "model.onnx"))
    first = media_id_of(api.upload("/detect", picture(1), headers=ASYNC))
    eventually(lambda: record(api, first)["run"]["waitingFor"] is not None)
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
    eventually(lambda: record(api, media_id)["run"]["waitingFor"] is not None)
    answer = api.upload("/detect", content, user="bob")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["duplicate"] is True
    assert answer.json["media"]["mediaStatus"] == 3
    assert (api.images / f"{media_id}.jpg").read_bytes() == content


def test_what_an_operator_wakes_up_for_is_in_the_metrics(api: Api) -> None:
    families = text_string_to_metric_families(api.app.test_client().get("/metrics").text)
    found = [sample for family in families for sample in family.samples]
    samples = {(sample.name, *sample.labels.values()): sample.value for sample in found}
    [build] = [sample.labels for sample in found if sample.name == "detections_build_info"]
    assert build == {"version": VERSION, "revision": revision.of_this_code()}
    assert samples["detections_ready",] == 1
    assert samples["detections_run_oldest_age_seconds",] >= 0
    assert samples["detections_run_leases_lost_total",] == 0
    assert samples["detections_log_lines_lost_total",] == 0
    for place in ("images", "videos", "database"):
        assert samples["detections_free_bytes", place] > 0


def test_the_alerts_name_metrics_that_there_are(api: Api) -> None:
    told = api.app.test_client().get("/metrics").text
    names = set(re.findall(r"detections_[a-z_]+", re.sub(r"summary:.*", "", ALERTS.read_text())))
    assert len(names) > 12
    assert {name for name in names if f"\n# TYPE {name.removesuffix('_total')}" not in told} == set()


def test_every_alert_is_in_the_operators_table_and_every_row_has_its_rule() -> None:
    chapter = OPERATIONS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE)
    assert documented == re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert len(documented) == len(chapter[chapter.index("| alert |") :].strip().splitlines()) - 2


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True, capture_output=True, timeout=30)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.long
def test_every_alert_fires_on_its_fault_and_none_on_a_healthy_service() -> None:
    cases = Path(__file__).with_name("alerts_test.yml")
    tested = set(re.findall(r'alertname="(\w+)"', cases.read_text()))
    assert tested == set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    subprocess.run(["promtool", "test", "rules", str(cases)], check=True, capture_output=True, timeout=60)
