"""Cancelling a run: by its user or an administrator, over HTTP or by command."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.media.hashing import media_id_of_bytes
from app.runs.lifecycle import RunRequest
from tests.api.conftest import Api, picture, settings_in
from tests.system.service import token

UNKNOWN = "0123456789abcdef"


@pytest.fixture
def api(tmp_path: Path, sqlite_template: Path) -> Iterator[Api]:
    """An application in which no process works on runs."""
    with closing(Api(settings_in(tmp_path / "application", sqlite_template, None, {}))) as api:
        yield api


def waiting(api: Api, seed: int = 1, user: str = "ada") -> str:
    """Return a media item with a waiting run of that user."""
    api.upload("/media", picture(seed))
    media_id = media_id_of_bytes(picture(seed))
    api.services.runs.start_new(media_id, RunRequest(user_id=user, confidence=0.45, frame_interval=0.5))
    return media_id


def test_its_user_ends_a_run_and_is_named(api: Api) -> None:
    media_id = waiting(api)
    answer = api.request("DELETE", f"/media/{media_id}/run")
    assert answer.status_code == 204
    assert answer.data == b""
    media = api.get(f"/media/{media_id}").json
    assert media is not None
    assert media["mediaStatus"] == 6
    assert media["run"]["state"] == "failed"
    assert media["run"]["error"] == "cancelled by ada"
    again = api.request("DELETE", f"/media/{media_id}/run")
    assert again.status_code == 409
    assert (again.json or {})["type"] == "urn:detections:problem:not-processing"


def test_somebody_else_ends_it_only_as_an_administrator(api: Api) -> None:
    media_id = waiting(api)
    assert api.request("DELETE", f"/media/{media_id}/run", user="bob").status_code == 403
    assert (api.get(f"/media/{media_id}").json or {})["run"]["state"] == "queued"
    headers = {"Authorization": f"Bearer {token('bob', roles=['admin'])}"}
    assert api.request("DELETE", f"/media/{media_id}/run", headers=headers).status_code == 204
    assert (api.get(f"/media/{media_id}").json or {})["run"]["error"] == "cancelled by bob"


@pytest.mark.parametrize("media_id", [UNKNOWN, "nonsense", "%00"])
def test_a_media_that_is_not_known_has_no_run(media_id: str, api: Api) -> None:
    assert api.request("DELETE", f"/media/{media_id}/run").status_code == 404


def test_the_command_ends_runs_and_says_where_there_was_none(api: Api) -> None:
    one, other = waiting(api, 1), waiting(api, 2, user="bob")
    command = api.app.test_cli_runner()
    done = command.invoke(args=["detect", "cancel", one, other, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == [{"mediaId": media_id, "cancelled": True} for media_id in (one, other)]
    assert (api.get(f"/media/{one}").json or {})["run"]["error"].startswith("cancelled by an administrator")
    for unknown in (one, UNKNOWN, "nonsense"):
        refused = command.invoke(args=["detect", "cancel", unknown])
        assert refused.exit_code == 4
        assert "no run is under way" in refused.stdout
