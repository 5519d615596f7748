"""Clients that people generate from /openapi.json upload, wait, list, and know problems by their types.

The generators are pinned: openapi-python-client in tests/requirements.txt, openapi-typescript in package-lock.json
beside this file, which `npm ci` installs at the first run.
"""

import filecmp
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.eventually import eventually
from tests.paths import ROOT
from tests.system.service import Service, token

HERE = Path(__file__).parent
ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
PROBLEM = "urn:detections:problem:"
INSTALL_SECONDS = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_SECONDS + 120)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", None)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def document(service: Service, tmp_path: Path) -> Path:
    """The description as the service publishes it."""
    path = tmp_path / "openapi.json"
    path.write_bytes(service.request("GET", "/openapi.json").content)
    return path


def run(*command: str | Path, cwd: Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, f"{command}: {ended.stdout[-4000:]}{ended.stderr[-4000:]}"
    return ended


class Generated:
    """The package that openapi-python-client made, by the names in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def module(self, path: str) -> ModuleType:
        return importlib.import_module(f"{self._name}.{path}")


@pytest.fixture
def generated(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generated]:
    settings = tmp_path / "generator.json"
    types = {"application/offset+octet-stream": "application/octet-stream"}  # the generator does not know tus's
    settings.write_text(json.dumps({"post_hooks": [], "content_type_overrides": types}))  # no hook formats it
    made = run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", document, "--output-path", tmp_path / "generated_client", "--config", settings),
        cwd=tmp_path,
        timeout=100,
    )
    assert "WARNING" not in made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    yield Generated("generated_client")
    for name in [name for name in sys.modules if name.partition(".")[0] == "generated_client"]:
        del sys.modules[name]


def test_a_client_made_by_openapi_python_client_uploads_waits_lists_and_knows_problems(
    service: Service, generated: Generated
) -> None:
    client_module, types = generated.module("client"), generated.module("types")
    detect, store = generated.module("api.detection.detect_upload"), generated.module("api.media.store_media")
    show, index = generated.module("api.media.show_media"), generated.module("api.media.list_media")
    results, content = generated.module("api.detection.list_detections"), generated.module("api.media.download_content")
    models = generated.module("models")

    def form(kind: Any, file: bytes, name: str) -> Any:
        return kind(file=types.File(payload=BytesIO(file), file_name=name))

    photo = ASTRONAUT.read_bytes()
    with (
        client_module.AuthenticatedClient(base_url=service.url, token=token("ada")) as client,
        client_module.AuthenticatedClient(base_url=service.url, token="nobody's") as stranger,
    ):
        body = form(models.DetectUploadFilesBody, photo, "astronaut.jpg")
        queued = detect.sync_detailed(client=client, body=body, prefer="respond-async")
        assert queued.status_code == HTTPStatus.ACCEPTED
        media = queued.parsed.media
        eventually(lambda: show.sync(media.id, client=client).run.state == "done", "the run")
        [frame] = results.sync(media.id, client=client).annotations
        assert [found.label for found in frame.detections] == ["person"]
        assert [item.name for item in index.sync(client=client, limit=10).items] == ["astronaut.jpg"]
        assert content.sync(media.id, client=client).payload.read() == photo
        again = detect.sync_detailed(client=client, body=types.File(payload=BytesIO(photo)), name="again.jpg")
        assert again.status_code == HTTPStatus.OK
        assert again.parsed.duplicate is True

        unsupported = store.sync(client=client, body=form(models.StoreMediaFilesBody, b"text", "notes.txt"))
        assert type(unsupported) is models.UnsupportedMediaProblem
        assert unsupported.status == 415
        other = bytearray(photo)
        other[len(photo) // 4] ^= 0xFF  # outside the sample, so the id is the same
        collision = store.sync(client=client, body=form(models.StoreMediaFilesBody, bytes(other), "other.jpg"))
        assert collision.type_ == f"{PROBLEM}media-id-collision"
        assert collision.media_url == f"/media/{media.id}"
        assert index.sync(client=stranger).type_ == f"{PROBLEM}unauthorized"
        assert show.sync("0123456789abcdef", client=client).type_ == f"{PROBLEM}not-found"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """What package-lock.json pins, installed beside it once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node with npm on this machine, so no TypeScript client is generated: apt install npm")
    installed, lock = HERE / "node_modules", HERE / "package-lock.json"
    seal = installed / ".installed-lock.json"
    if not seal.exists() or not filecmp.cmp(seal, lock, shallow=False):
        run(npm, "ci", "--no-progress", cwd=HERE, timeout=INSTALL_SECONDS)
        shutil.copy(lock, seal)
    return installed


@pytest.mark.long
def test_a_client_made_by_openapi_typescript_uploads_waits_lists_and_knows_problems(
    service: Service, document: Path, node_modules: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "typescript"
    folder.mkdir()
    for name in ("client.mts", "tsconfig.json", "package.json"):
        shutil.copy(HERE / name, folder)
    (folder / "node_modules").symlink_to(node_modules)
    binaries = node_modules / ".bin"
    run(binaries / "openapi-typescript", document, "--output", folder / "schema.mts", cwd=folder, timeout=100)
    run(binaries / "tsc", "--project", ".", cwd=folder, timeout=100)
    with ASTRONAUT.open("rb") as photo:
        ended = run("node", "client.mjs", service.url, token("ada"), cwd=folder, stdin=photo, timeout=100)
    said = json.loads(ended.stdout)
    names = ("unsupported-media", "media-id-collision", "unauthorized", "not-found")
    assert said == {
        "id": said["id"],
        "state": "done",
        "labels": ["person"],
        "listed": ["astronaut.jpg"],
        "types": [PROBLEM + name for name in names],
        "mediaUrl": f"/media/{said['id']}",
    }
