"""The application as the factory makes it, on a migrated SQLite database, with its services running.

Requests go through Flask's test client: real storage, detector process and annotations service, and no sockets except
to the last. What depends on the server is tested under gunicorn, in tests/web and tests/system.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from app import create_app
from app.services import Services
from app.settings import Settings
from tests.long import later
from tests.paths import PHOTOS
from tests.reference.service import ReferenceService
from tests.system.service import SECRET, token

ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"
RUNS_OUT = b"\xff\xd8\xff\xe0 a picture that ends here"
"""Begins like a JPEG file, and no decoder takes it."""


def picture(seed: int, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """Return a small picture of noise that differs for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


class Untouched(io.RawIOBase):
    """A body that records whether anybody read from it."""

    def __init__(self, content: bytes = b"") -> None:
        self._content = io.BytesIO(content)
        self.was_read = False
        self.environ = {"wsgi.input": self, "CONTENT_LENGTH": str(len(content))}

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.was_read = True
        return self._content.readinto(buffer)


class Api:
    """An application and the requests that tests make. The creator starts its services."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.app: Flask = create_app(Settings.from_env(settings))
        self.services: Services = self.app.extensions["detections"]
        self.images = Path(settings["IMAGES_DIR"])
        self.videos = Path(settings["VIDEOS_DIR"])

    def close(self) -> None:
        self.services.stop()

    def request(self, method: str, path: str, *, user: str = "ada", **options: Any) -> TestResponse:
        """Send a request with a valid token, unless `headers` has another Authorization."""
        headers = {"Authorization": f"Bearer {token(user)}"} | options.pop("headers", {})
        return self.app.test_client().open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.request("GET", path, **options)

    def upload(self, path: str, content: bytes, name: str = "photo.jpg", **options: Any) -> TestResponse:
        """POST a file as a form."""
        return self.request("POST", path, data={"file": (io.BytesIO(content), name)}, **options)

    def send_raw(self, path: str, content: bytes, content_type: str = "image/jpeg", **options: Any) -> TestResponse:
        """POST a file as a raw body."""
        return self.request("POST", path, data=content, content_type=content_type, **options)

    def stored(self) -> set[str]:
        """Return the names of all published files."""
        return {path.name for folder in (self.images, self.videos) for path in folder.iterdir() if path.is_file()}

    def leftovers(self) -> list[Path]:
        """Return what lies in the folders for files being received."""
        return [path for folder in (self.images, self.videos) for path in (folder / ".incoming").iterdir()]


def settings_in(folder: Path, template: Path, annotations_url: str | None, more: dict[str, str]) -> dict[str, str]:
    """Return the environment of an application that stores everything in that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, folder / "detections.db")
    settings = {
        "JWT_SECRET_KEY": SECRET,
        "DATABASE_URL": f"sqlite:///{folder / 'detections.db'}",
        "IMAGES_DIR": str(folder / "images"),
        "VIDEOS_DIR": str(folder / "videos"),
        "DETECTION_WORKERS": "1",
    }
    if annotations_url:
        settings["ANNOTATIONS_URL"] = annotations_url
    return settings | more


MakeApi = Callable[..., Api]


@pytest.fixture(params=later(["sqlite"], "postgres"))
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database. What is asked of it here is asked of both kinds in the folders of those who ask."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def make_api(tmp_path: Path, sqlite_template: Path) -> Iterator[MakeApi]:
    """Creates applications with separate files: make_api(annotations=None, threads=16, **settings)."""
    made: list[Api] = []

    def make(annotations: ReferenceService | None = None, threads: int = 16, **settings: str) -> Api:
        url = annotations.url if annotations else None
        folder = tmp_path / f"application-{len(made)}"
        made.append(Api(settings_in(folder, sqlite_template, url, settings)))
        made[-1].services.start(threads)
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Api]:
    """One application per test file, without an annotations service; each test uses pictures of its own."""
    folder = tmp_path_factory.mktemp("api")
    with closing(Api(settings_in(folder, sqlite_template, None, {}))) as running:
        running.services.start()
        yield running


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service
