"""A damaged SQLite database: detected, reported, not written to, and rescued as docs/operations.md describes."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.database import Database, history
from app.database.integrity import Damage, find_damage
from app.errors import DatabaseDamaged
from tests.api.conftest import Api, picture, settings_in
from tests.api.test_health import not_ready
from tests.cli.conftest import Shell
from tests.database.damaged_file import damage_frame, damage_page, root_page
from tests.paths import ROOT
from tests.reference.service import ReferenceService
from tests.system.service import SECRET

pytestmark = pytest.mark.slow

ITEMS = 6
TABLES = ("media", "outbox_stream", "outbox_message")
INDEXES = ("uq_media_path", "ix_outbox_message_delivered", "ix_media_filtered")


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path_factory.mktemp("other") / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, annotations: ReferenceService
) -> dict[str, str]:
    """The settings of a stopped service with a few delivered items; its database is `detections.db`."""
    folder = tmp_path_factory.mktemp("application")
    made = settings_in(folder, sqlite_template, annotations.url, {"DETECTION": "off", "DISPATCHER": "off"})
    shell = Shell(made)
    for number in range(ITEMS):
        shell.upload(number)
    shell.run("outbox", "flush")
    with shell.api.services.database.write_transaction() as session:
        session.connection().exec_driver_sql("UPDATE database_instance SET counter = 40")
    shell.api.services.folders.open()
    with shell.api.services.database.read_transaction() as session:
        stored = history.get(session)
    assert stored is not None
    shell.api.services.folders.write_markers(stored)
    shell.api.close()
    shutil.copy(folder / "detections.db", folder / "sound.db")
    return made


@pytest.fixture
def path(settings: dict[str, str]) -> Path:
    """The path of the database, which is sound again for each test."""
    found = Path(settings["DATABASE_URL"].removeprefix("sqlite:///"))
    for left in found.parent.glob("detections.db*"):
        left.unlink()
    shutil.copy(found.with_name("sound.db"), found)
    return found


def found_in(path: Path) -> list[Damage]:
    with closing(Database(f"sqlite:///{path}")) as database:
        return list(find_damage(database.read_transaction))


def test_nothing_is_found_in_a_sound_database(path: Path) -> None:
    assert found_in(path) == []


@pytest.mark.parametrize("name", [*TABLES, *INDEXES])
def test_a_damaged_page_is_named_with_its_table(path: Path, name: str) -> None:
    page = root_page(path, name)
    with closing(sqlite3.connect(path)) as connection:
        table = connection.execute("SELECT tbl_name FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    damage_page(path, page)
    found = [damage.problem for damage in found_in(path) if damage.table == table]
    assert any(re.search(rf"page {page}\b", problem) for problem in found), found


def test_an_index_whose_entries_are_not_its_tables_is_found_although_its_pages_are_sound(path: Path) -> None:
    page = root_page(path, "uq_media_path")
    content = bytearray(path.read_bytes())
    at = content.index(b"/images/", (page - 1) * 4096)
    content[at : at + 8] = b"/imagez/"
    path.write_bytes(content)
    [damage] = found_in(path)
    assert damage.table == "media"
    assert "uq_media_path does not find 1 rows" in damage.problem


def test_an_invalid_header_is_reported_by_commands_in_one_line(path: Path, settings: dict[str, str]) -> None:
    damage_page(path, 1, at=0)
    [damage] = found_in(path)
    assert "not a database" in damage.problem
    shell = Shell(settings)
    found = shell.json("outbox", "verify", exit_code=5)
    assert "not a database" in found["damage"][0]["problem"]
    shell.api.close()


def test_verify_tells_of_damage_with_exit_code_5_and_says_how_to_rescue(path: Path, settings: dict[str, str]) -> None:
    damage_page(path, root_page(path, "outbox_stream"))
    shell = Shell(settings)
    told = shell.run("outbox", "verify", exit_code=5)
    assert "outbox_stream" in told.stdout
    assert "A damaged database" in told.stderr
    shell.api.close()


def test_damage_is_reported_by_uploads_and_readiness_and_logged_once(
    path: Path, settings: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    damage_page(path, root_page(path, "uq_media_path"), at=0)
    with closing(Api(settings)) as api:
        for number in range(4):
            refused = api.upload("/media", picture(100 + number))
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["Retry-After"]) > 0
            assert "damaged" in refused.text
        assert "damaged" in not_ready(api)
        with pytest.raises(DatabaseDamaged):
            api.services.database.check_writable()
        assert api.get("/media").status_code == 200
        assert api.leftovers() == []
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines].count("database_failed") == 1
    assert not any("Traceback" in line.get("exception", "") for line in lines)


def test_a_damaged_frame_of_the_log_is_reported_as_a_restored_database_and_its_uploads_can_come_again(
    path: Path, settings: dict[str, str]
) -> None:
    contents = [picture(200 + number) for number in range(4)]
    with closing(Api(settings)) as api:
        assert [api.upload("/media", content).status_code for content in contents] == [201] * 4
        with api.services.database.write_transaction() as session:
            stored = history.advance(session)  # as the keeper does within seconds of a commit
        assert stored is not None
        api.services.folders.write_markers(stored)
        left = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal")}  # by a power cut
    for suffix, content in left.items():
        path.with_name(path.name + suffix).write_bytes(content)
    damage_frame(path.with_name(f"{path.name}-wal"), 0.5)
    with closing(Api(settings)) as api:
        api.services.folders.open()
        with api.services.database.read_transaction() as session:
            assert api.services.outbox_status(session)["epoch"] == 2
        answers = [api.upload("/media", content).status_code for content in contents]
        assert set(answers) == {200, 201}, "some are known still, and the file of some is adopted"


def rescue_commands() -> str:
    """Return the commands in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text()
    chapter = text[text.index("## A damaged database") :]
    return chapter[chapter.index("```sh\n") + 6 : chapter.index("```\n")]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 command is not installed")
@pytest.mark.parametrize("name", ["media", "outbox_stream", "outbox_message", "uq_media_path"])
def test_the_documented_rescue_brings_back_what_can_be_read(
    path: Path, settings: dict[str, str], annotations: ReferenceService, name: str
) -> None:
    damage_page(path, root_page(path, name), at=3500 if name == "media" else 8)
    assert found_in(path) != []
    commands = rescue_commands().replace("/var/lib/detections/detections.db", str(path)).partition("\nflask")[0]
    subprocess.run(["bash", "-c", commands], cwd=ROOT, env=os.environ | settings, check=True, capture_output=True)
    assert found_in(path) == []
    with closing(sqlite3.connect(path)) as connection:
        media = [row[0] for row in connection.execute("SELECT id FROM media")]
    assert len(media) == ITEMS if name != "media" else len(media) < ITEMS
    shell = Shell(settings)
    shell.api.services.folders.open()
    shell.run("outbox", "verify")
    shell.run("media", "verify")
    shell.run("outbox", "resend", "--missing")
    shell.run("outbox", "flush")
    shell.run("outbox", "verify", "--remote")
    with shell.api.services.database.read_transaction() as session:
        assert shell.api.services.outbox_status(session)["epoch"] >= 2
    shell.api.close()
