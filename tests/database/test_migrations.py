"""Migrations up and down on filled databases of both kinds, and their agreement with the models."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import CheckConstraint, delete, inspect, select, text, update

from app.database import Database, history
from app.database.models import (
    Base,
    CounterShard,
    DatabaseInstance,
    Detection,
    DetectionRun,
    Media,
    MediaStatus,
    OutboxAttempt,
    OutboxCircuit,
    OutboxHold,
    OutboxStream,
    ResumableUpload,
    SharedKey,
)
from app.media.status import change_status
from app.outbox.queue import OutboxQueue
from tests import fork_server
from tests.conftest import migrate
from tests.ingest.intake import open_intake, picture
from tests.paths import ROOT

pytestmark = pytest.mark.slow


def configuration(url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def fill(database: Database, folder: Path) -> None:
    """Add a row to every table."""
    media = open_intake(folder, database).send(picture("photo")).media
    with database.write_transaction() as session:
        queue = OutboxQueue(database.now)
        change_status(session, queue, media.id, MediaStatus.AI_PROCESSING, request_id=None)
        run = DetectionRun(
            media_id=media.id,
            user_id="ada",
            detector="d",
            confidence=0.5,
            frame_interval=1,
            state="queued",
            created_at=1.0,
        )
        session.add(run)
        session.flush()
        session.add(
            Detection(
                run_id=run.id, frame=0, ordinal=0, time=0.0, class_num=0, label="person", confidence=0.5,
                center_x=0.5, center_y=0.5, width=0.1, height=0.1, source_frame=7,
            )
        )  # fmt: skip
        session.add(OutboxCircuit(endpoint="endpoint", state="closed", failures=0))
        session.add(OutboxHold(endpoint="endpoint", user_id="ada", since=1.0, until=2.0, failures=1, reason="403"))
        session.add(CounterShard(name="a figure of the test", value=1.0))
        session.add(SharedKey(purpose="a purpose of the test", secret="0" * 64))
        history.make(session)
        session.add(
            ResumableUpload(
                id="0" * 32, user_id="ada", kind="single", state="receiving", file="/incoming/file", upload_metadata="",
                received=0, takeovers=0, created_at=1.0, expires_at=2.0,
            )
        )  # fmt: skip
        session.add(
            OutboxAttempt(media_id=media.id, seq=1, at=1.0, duration=1.0, verdict="delivered", detail="", excerpt="")
        )


def tables(database: Database) -> set[str]:
    return set(inspect(database.reader).get_table_names()) - {"alembic_version"}


def test_a_filled_database_goes_down_and_up_again(database_url: str, tmp_path: Path) -> None:
    with closing(Database(database_url)) as database:
        assert tables(database) == set(Base.metadata.tables)
        fill(database, tmp_path / "media")
        with database.read_transaction() as session:
            for table in Base.metadata.tables.values():
                assert session.execute(table.select()).first() is not None, table.name
    command.downgrade(configuration(database_url), "base")
    with closing(Database(database_url)) as database:
        assert tables(database) == set()
    migrate(database_url)
    with closing(Database(database_url)) as database:
        assert tables(database) == set(Base.metadata.tables)
        fill(database, tmp_path / "again")


def test_runs_of_the_first_schema_belong_to_whoever_brought_their_media(database_url: str, tmp_path: Path) -> None:
    with closing(Database(database_url)) as database:
        fill(database, tmp_path / "media")
    command.downgrade(configuration(database_url), "0001")
    migrate(database_url)
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        owners = session.execute(select(DetectionRun.user_id, Media.user_id, DetectionRun.packets_skipped).join(Media))
        assert owners.all() == [("ada", "ada", 0)]
        assert session.scalars(select(Media.checksum)).all() == [None]


def test_results_of_the_second_schema_get_their_frames_number_where_it_is_known(
    database_url: str, tmp_path: Path
) -> None:
    """A picture is frame 0; the frame numbers of a video are unknown."""
    found = select(Detection.source_frame, DetectionRun.warnings).join(DetectionRun)
    with closing(Database(database_url)) as database:
        fill(database, tmp_path / "media")
    command.downgrade(configuration(database_url), "0002")
    migrate(database_url)
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        assert session.execute(found).all() == [(0, None)]
        session.execute(update(Media).values(media_type="Video"))
    command.downgrade(configuration(database_url), "0002")
    migrate(database_url)
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        assert session.execute(found).all() == [(None, None)]


def test_a_migration_up_or_down_loses_no_row(database_url: str, tmp_path: Path) -> None:
    """SQLite alters a table by dropping a copy, which must not delete the rows that refer to it."""
    new_since = {
        SharedKey.__tablename__,
        DatabaseInstance.__tablename__,
        OutboxCircuit.__tablename__,
        OutboxHold.__tablename__,
        ResumableUpload.__tablename__,
    }
    renamed = {"outbox_tally": CounterShard.__tablename__}
    kept = set(Base.metadata.tables) - new_since

    def counts() -> dict[str, int]:
        with closing(Database(database_url)) as database, database.read_transaction() as session:
            found = {
                renamed.get(name, name): session.scalar(text(f"SELECT count(*) FROM {name}"))
                for name in tables(database)
            }
            return {name: int(count or 0) for name, count in found.items() if name in kept}

    with closing(Database(database_url)) as database:
        fill(database, tmp_path / "media")
    before = counts()
    assert set(before) == kept
    assert all(before.values()), before
    command.downgrade(configuration(database_url), "0001")
    assert counts() == before
    migrate(database_url)
    assert counts() == before


def test_counters_in_several_rows_go_down_into_one_with_their_sum(database_url: str) -> None:
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        for name, shard, value in (("a", 0, 1.0), ("a", 7, 2.0), ("b", 9, 4.0)):
            session.add(CounterShard(name=name, shard=shard, value=value))
    command.downgrade(configuration(database_url), "0002")
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        rows = session.execute(text("SELECT name, value FROM outbox_tally ORDER BY name")).all()
        assert rows == [("a", 3.0), ("b", 4.0)]


_BEFORE_THE_CIRCUIT_BREAKER = (
    "INSERT INTO outbox_gate VALUES ('http://a', 'closed', 3, 1800000000.5, '503')",
    "INSERT INTO outbox_gate VALUES ('http://b', 'open', 0, NULL, NULL)",
    (
        "INSERT INTO media (id, name, path, media_type, media_status, user_id, size_bytes, created_at)"
        " VALUES ('0123456789abcdef', 'a.jpg', '/a.jpg', 'Image', 1, 'ada', 1, 1.0)"
    ),
    (
        "INSERT INTO outbox_stream (media_id, last_seq, acked_seq, due_at, lease_epoch, attempts, refusals, uncertain,"
        " head_since) VALUES ('0123456789abcdef', 1, 0, 5.0, 4, 7, 2, false, 2.0)"
    ),
    (
        "INSERT INTO outbox_message (media_id, seq, kind, payload, idempotency_key, user_id, created_at)"
        " VALUES ('0123456789abcdef', 1, 'create', '{}', 'key', 'ada', 1.0)"
    ),
    (
        "INSERT INTO outbox_attempt (media_id, seq, at, duration, verdict, detail, excerpt)"
        " VALUES ('0123456789abcdef', 1, 1.0, 1.0, 'close_gate', '', '')"
    ),
    "INSERT INTO outbox_tally (name, value) VALUES ('attempts:create:close_gate', 6), ('attempts:create:retry', 4)",
)
_STREAM = "SELECT user_id, attempts, failures, counted_attempts, refused_since FROM outbox_stream"


def test_a_gate_becomes_a_circuit_breaker_and_back(database_url: str) -> None:
    command.downgrade(configuration(database_url), "0002")
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        for statement in _BEFORE_THE_CIRCUIT_BREAKER:
            session.execute(text(statement))
    migrate(database_url)
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        circuits = session.execute(select(OutboxCircuit.endpoint, OutboxCircuit.state, OutboxCircuit.retry_at))
        assert sorted(circuits.all()) == [("http://a", "open", 1800000000.5), ("http://b", "closed", None)]
        assert session.execute(text(_STREAM)).all() == [("ada", 7, 7, 2, 2.0)]
        assert session.scalars(select(OutboxAttempt.verdict)).all() == ["unfit"]
        counters = session.execute(select(CounterShard.name, CounterShard.value).order_by(CounterShard.name))
        assert counters.all() == [("attempts:create:retry", 4.0), ("attempts:create:unfit", 6.0)]
        session.execute(text("UPDATE outbox_circuit SET state = 'half-open' WHERE endpoint = 'http://a'"))
        session.execute(text("INSERT INTO counter_shard (name, value) VALUES ('attempts:create:hold', 1)"))
        session.execute(text("INSERT INTO counter_shard (name, value) VALUES ('attempts:create:retry_limited', 2)"))
    command.downgrade(configuration(database_url), "0002")
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        gates = session.execute(text("SELECT endpoint, state, closed_until FROM outbox_gate ORDER BY endpoint"))
        assert gates.all() == [("http://a", "closed", 1800000000.5), ("http://b", "open", None)]
        assert session.execute(text("SELECT attempts, refusals FROM outbox_stream")).all() == [(7, 2)]
        tallies = session.execute(text("SELECT name, value FROM outbox_tally ORDER BY name")).all()
        assert tallies == [("attempts:create:close_gate", 7.0), ("attempts:create:retry", 6.0)]
        assert session.execute(text("SELECT verdict FROM outbox_attempt")).all() == [("close_gate",)]


def test_columns_and_counters_keep_their_values_under_their_older_and_newer_names(
    database_url: str, tmp_path: Path
) -> None:
    with closing(Database(database_url)) as database:
        fill(database, tmp_path / "media")
        with database.write_transaction() as session:
            session.execute(update(OutboxStream).values(outcome_unknown=True, waiting_since=3.0))
            session.execute(update(DetectionRun).values(attempts=2))
            session.execute(delete(CounterShard))
            session.add_all([CounterShard(name="a", shard=0, value=1.0), CounterShard(name="a", shard=7, value=2.0)])
    command.downgrade(configuration(database_url), "0011")
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        assert session.execute(text("SELECT uncertain, head_since FROM outbox_stream")).all() == [(True, 3.0)]
        assert session.execute(text("SELECT tries FROM detection_run")).all() == [(2,)]
        rows = session.execute(text("SELECT name, slot, value FROM outbox_tally ORDER BY slot")).all()
        assert rows == [("a", 0, 1.0), ("a", 7, 2.0)]
    migrate(database_url)
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        stream = select(OutboxStream.outcome_unknown, OutboxStream.waiting_since)
        assert session.execute(stream).all() == [(True, 3.0)]
        assert session.scalars(select(DetectionRun.attempts)).all() == [2]
        shards = select(CounterShard.name, CounterShard.shard, CounterShard.value).order_by(CounterShard.shard)
        assert session.execute(shards).all() == [("a", 0, 1.0), ("a", 7, 2.0)]


def test_a_migration_that_would_leave_references_to_nothing_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/detections.db"
    assert alembic(url, "upgrade", "0001").returncode == 0
    with closing(Database(url)) as database, database.reader.connect() as connection:
        connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("INSERT INTO detection VALUES (7, 0, 0, 0, 0, 'x', 0.5, 0.5, 0.5, 0.1, 0.1)")
        connection.commit()
    done = alembic(url, "upgrade", "head")
    assert done.returncode != 0
    assert "rows of detection" in done.stdout + done.stderr
    with closing(Database(url)) as database, database.read_transaction() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0001"


def test_migrations_and_models_agree(database_url: str) -> None:
    command.check(configuration(database_url))


def test_migrations_and_models_have_the_same_constraints_by_name(database_url: str) -> None:
    """Autogenerate does not compare CHECK constraints."""
    with closing(Database(database_url)) as database:
        inspector = inspect(database.reader)
        for name, table in Base.metadata.tables.items():
            migrated = {str(check["name"]) for check in inspector.get_check_constraints(name)}
            modelled = {str(one.name) for one in table.constraints if isinstance(one, CheckConstraint)}
            assert migrated == modelled, name


def test_migrating_again_changes_nothing(database_url: str, tmp_path: Path) -> None:
    with closing(Database(database_url)) as database:
        fill(database, tmp_path / "media")
    migrate(database_url)
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        assert session.execute(text("SELECT count(*) FROM media")).scalar_one() == 1


def alembic(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        timeout=60,
    )


def test_the_command_line_migrates_the_database_of_the_environment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a folder/detections.db"
    done = alembic(url, "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert alembic(url, "check").returncode == 0
    with closing(Database(url)) as database:
        assert tables(database) == set(Base.metadata.tables)


@pytest.mark.parametrize("url", ["nonsense", "mysql://root:hunter22@host/db", "sqlite://"])
def test_a_wrong_address_ends_the_command_with_one_line_that_names_the_setting(url: str) -> None:
    done = alembic(url, "upgrade", "head")
    assert done.returncode != 0
    [line] = (done.stderr + done.stdout).strip().splitlines()
    assert "DATABASE_URL" in line
    assert "hunter22" not in line
