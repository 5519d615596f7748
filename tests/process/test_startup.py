"""Warnings at a start: other machines that are reached without TLS."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from app.process import logs
from app.settings import Settings
from app.startup import warn_about_plain_http
from tests.system.service import SECRET, Service

pytestmark = pytest.mark.slow

LEAST = {"JWT_SECRET_KEY": SECRET}
BY_KEYS = {"ANNOTATIONS_TOKEN": "token", "JWT_ALGORITHM": "RS256"}


def warnings(capfd: pytest.CaptureFixture[str], **environ: str) -> list[dict[str, Any]]:
    settings = Settings.from_env(environ)
    logs.configure(settings.logs)
    warn_about_plain_http(settings)
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("host", ["annotations", "10.0.0.7:8080", "[2001:db8::1]", "localhost.example", "127.example"])
def test_plain_http_to_another_host_is_warned_of_by_its_setting(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    [line] = warnings(capfd, **LEAST, ANNOTATIONS_URL=f"http://{host}/base")
    assert line["event"] == "plain_http_to_another_host"
    assert line["level"] == "warning"
    assert line["setting"] == "ANNOTATIONS_URL"
    assert line["host"] in host
    [line] = warnings(capfd, **BY_KEYS, JWT_JWKS_URL=f"http://{host}/keys")
    assert line["setting"] == "JWT_JWKS_URL"


@pytest.mark.parametrize(
    "url",
    [
        "https://annotations.example",
        "http://localhost:8080",
        "http://annotations.localhost",
        "http://LOCALHOST.",
        "http://127.0.0.1",
        "http://127.9.9.9:1",
        "http://[::1]:5000",
        f"http://{socket.gethostname()}",
    ],
)
def test_tls_and_this_machine_are_not_warned_of(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert warnings(capfd, **LEAST, ANNOTATIONS_URL=url) == []
    assert warnings(capfd, **LEAST) == []


def test_a_server_says_so_once_at_its_start(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, "http://annotations.invalid", DISPATCHER="off", WEB_CONCURRENCY="2")
    try:
        service.start()
    finally:
        service.stop()
        service.kill()
    assert service.log.read_text(errors="replace").count("plain_http_to_another_host") == 1
