"""An application without background work, so that only commands change anything."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app.media.hashing import media_id_of_bytes
from tests.api.conftest import Api, picture, settings_in
from tests.reference.service import ReferenceService
from tests.system.service import SECRET


class Shell:
    """An application and the commands run on it."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        self.api = Api(settings)

    def run(self, *arguments: str, exit_code: int = 0) -> Result:
        """Run `flask …`, which must end with that exit code."""
        result = self.api.app.test_cli_runner().invoke(args=arguments)
        assert result.exit_code == exit_code, (result.stdout, result.stderr, result.exception)
        return result

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """Return the JSON document that `flask … --json` prints; nothing else may be on standard output."""
        return json.loads(self.run(*arguments, "--json", exit_code=exit_code).stdout)

    def upload(self, number: int) -> str:
        """Upload a new media item of that number and return its id."""
        assert self.api.upload("/media", picture(number)).status_code == 201
        return media_id_of_bytes(picture(number))


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture
def shell(tmp_path: Path, sqlite_template: Path, annotations: ReferenceService) -> Iterator[Shell]:
    """Delivers to `annotations` when a command says so."""
    shell = Shell(settings_in(tmp_path / "application", sqlite_template, annotations.url, {}))
    yield shell
    shell.api.close()


@pytest.fixture
def lonely_shell(tmp_path: Path, sqlite_template: Path) -> Iterator[Shell]:
    """Without an annotations service."""
    shell = Shell(settings_in(tmp_path / "lonely", sqlite_template, None, {"OUTBOX_RETENTION_DAYS": "0.0000001"}))
    yield shell
    shell.api.close()
