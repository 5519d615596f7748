"""Liveness, readiness with reasons, and correct metrics."""

import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url, text

from app.database import Database
from app.database.postgres_connection import PATIENT
from app.media.hashing import media_id_of_bytes
from app.process import threads
from app.web.readiness import TIMEOUT_SECONDS
from tests.api.conftest import Api, MakeApi, picture
from tests.eventually import eventually
from tests.outbox.refusals import refused_for_long
from tests.reference.service import ReferenceService

PUBLIC = ("/healthz", "/readyz", "/metrics", "/openapi.json")


def metrics(api: Api) -> dict[str, float]:
    """Return every metric of `/metrics` by name."""
    answer = api.app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def unmigrated(folder: Path) -> str:
    """The address of a database without tables."""
    path = folder / "empty.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    return f"sqlite:///{path}"


def not_ready(api: Api) -> str:
    """Return the reasons why the service is not ready."""
    answer = api.app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json is not None
    assert answer.json["type"].endswith("unavailable")
    assert api.app.test_client().get("/healthz").status_code == 200
    detail: str = answer.json["detail"]
    return detail


@pytest.mark.parametrize("path", PUBLIC)
def test_supervisors_need_no_token(api: Api, path: str) -> None:
    with api.app.test_client().get(path) as answer:
        assert answer.status_code == 200


def test_it_is_ready_once_migrated_and_not_before(make_api: MakeApi, tmp_path: Path) -> None:
    assert make_api().app.test_client().get("/readyz").text.startswith('{"status":"ready"')
    assert "run `alembic upgrade head`" in not_ready(make_api(DATABASE_URL=unmigrated(tmp_path)))


@pytest.mark.parametrize(("revision", "remedy"), [("0001", "alembic upgrade head"), ("9999", "newer than this code")])
def test_a_schema_of_another_release_makes_it_not_ready(make_api: MakeApi, revision: str, remedy: str) -> None:
    api = make_api()
    with api.services.database.write_transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    detail = not_ready(api)
    assert revision in detail
    assert remedy in detail


def test_a_disk_that_uploads_under_way_will_nearly_fill_makes_it_not_ready(make_api: MakeApi) -> None:
    api = make_api()
    storage = api.services.storage
    with storage.incoming("Image", storage.free_bytes(api.images) - (100 << 20)):
        detail = not_ready(api)
    assert "images" in detail
    assert "less than 256 MiB" in detail
    assert api.app.test_client().get("/readyz").status_code == 200


def test_every_reason_is_told_at_once(make_api: MakeApi, tmp_path: Path) -> None:
    api = make_api(DATABASE_URL=unmigrated(tmp_path))
    detail = not_ready(api)
    assert all(reason in detail for reason in ("migrated", "images", "videos")), detail


def test_a_database_that_cannot_be_read_makes_it_not_ready(make_api: MakeApi, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 1000)
    detail = not_ready(make_api(DATABASE_URL=f"sqlite:///{tmp_path / 'broken.db'}"))
    assert "database" in detail
    assert str(tmp_path) not in detail


def test_a_database_that_hangs_makes_it_not_ready_soon_and_holds_one_thread_however_often_it_is_asked(
    make_api: MakeApi, postgres_url: str
) -> None:
    url = make_url(postgres_url).update_query_dict({"options": "-c lock_timeout=20s"})
    api = make_api(DATABASE_URL=url.render_as_string(hide_password=False))
    with closing(Database(postgres_url, limits=PATIENT)) as database, database.write_transaction() as session:
        session.execute(text("LOCK TABLE alembic_version"))
        began = time.monotonic()
        for _ask in range(2):
            assert "the database does not answer" in not_ready(api)
        assert time.monotonic() - began < 2 * TIMEOUT_SECONDS + 2  # the rest allows for a busy machine
        assert len([thread for thread in threading.enumerate() if thread.name == "readiness"]) == 1
    eventually(lambda: api.app.test_client().get("/readyz").status_code == 200)


def test_a_folder_that_is_gone_makes_it_not_ready(make_api: MakeApi) -> None:
    api = make_api()
    shutil.rmtree(api.images)
    assert "images" in not_ready(api)


def test_the_metrics_count_what_waits(make_api: MakeApi) -> None:
    api = make_api()
    assert metrics(api)["detections_outbox_pending_messages"] == 0
    api.upload("/media", picture(1))
    api.upload("/detect", picture(2))
    told = metrics(api)
    assert told["detections_outbox_pending_messages"] == 4
    assert told["detections_outbox_parked_media"] == 0
    assert 0 <= told["detections_outbox_oldest_age_seconds"] < 60
    assert told["detections_outbox_delivered_last_hour"] == 0
    assert told["detections_outbox_circuit_open"] == 0
    assert told["detections_outbox_held_users"] == 0


def test_the_metrics_count_what_was_delivered_and_what_is_parked(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations)
    api.upload("/media", picture(3))
    annotations.wait_for(lambda entries: any(entry["applied"] for entry in entries))
    annotations.control(fail={"status": 422, "times": 2})
    api.upload("/media", picture(4))
    refused_for_long(api.services.settings.database.url, media_id_of_bytes(picture(4)))
    annotations.wait_for(lambda entries: len([entry for entry in entries if entry["status"] == 422]) == 2)
    api.services.stop()  # the responses are recorded now
    told = metrics(api)
    assert told["detections_outbox_delivered_last_hour"] == 1
    assert told["detections_outbox_parked_media"] == 1
    assert told["detections_outbox_pending_messages"] == 0


def test_the_metrics_show_an_open_circuit(make_api: MakeApi, annotations: ReferenceService) -> None:
    annotations.control(fail={"status": 503, "times": 1000})
    api = make_api(annotations)
    for number in range(5, 10):
        api.upload("/media", picture(number))
    annotations.wait_for(lambda entries: len([entry for entry in entries if entry["status"] == 503]) >= 5)
    api.services.stop()
    told = metrics(api)
    assert told["detections_outbox_circuit_open"] == 1
    assert told["detections_outbox_pending_messages"] == 5


@pytest.mark.parametrize(("revision", "remedy"), [("0001", "alembic upgrade head"), ("9999", "newer than this code")])
def test_calls_say_what_readyz_says_of_a_schema_of_another_release(
    make_api: MakeApi, revision: str, remedy: str
) -> None:
    api = make_api()
    with api.services.database.write_transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    api.services.schema.work()
    for answer in (api.upload("/media", picture(1)), api.upload("/detect", picture(1)), api.get("/media")):
        assert answer.status_code == 503
        assert remedy in answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert api.stored() == set()
    assert remedy in not_ready(api)


def test_a_schema_that_is_downgraded_beneath_is_told_by_the_first_call_that_fails(make_api: MakeApi) -> None:
    api = make_api()
    with api.services.database.write_transaction() as session:
        session.execute(text("ALTER TABLE media RENAME COLUMN checksum TO lost"))
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    answer = api.get("/media")
    assert answer.status_code == 503
    assert "alembic upgrade head" in answer.text


def test_a_thread_that_has_ended_makes_the_process_not_alive(make_api: MakeApi) -> None:
    api = make_api()
    threads.ended_threads.append("outbox-dispatcher")
    try:
        answer = api.app.test_client().get("/healthz")
    finally:
        threads.ended_threads.clear()
    assert answer.status_code == 503
    assert "outbox-dispatcher" in answer.text


def test_the_sizes_of_the_database_and_of_its_log_are_among_the_metrics(make_api: MakeApi) -> None:
    api = make_api()
    path = Path(str(api.services.database.url.database))
    found = metrics(api)
    assert found["detections_database_bytes"] == path.stat().st_size > 0
    assert found["detections_wal_bytes"] == path.with_name(f"{path.name}-wal").stat().st_size > 0


def test_on_postgresql_the_size_of_the_database_is_the_servers(make_api: MakeApi, postgres_url: str) -> None:
    found = metrics(make_api(DATABASE_URL=postgres_url))
    assert found["detections_database_bytes"] > 0
    assert "detections_wal_bytes" not in found
