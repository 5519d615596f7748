"""The service below a path prefix, behind an nginx that keeps the prefix and one that removes it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, ViewportSize, expect

from app import create_app
from app.settings import Settings
from app.settings.access import OWN_PATHS
from tests.long import later
from tests.page.watched import Tab
from tests.paths import ROOT
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.system.service import Service, token

PREFIX = "/detections"
PHOTO = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
ADMIN = token("grace", roles=["admin"])

SERVERS = """
    server {{  # passes the path on as it is
        listen 127.0.0.1:{unchanged};
        location / {{ return 418; }}
        location = /detections {{ proxy_pass {url}; }}
        location /detections/ {{ proxy_pass {url}; proxy_buffering off; proxy_request_buffering off; }}
    }}
    server {{  # strips it: the URI of proxy_pass takes the place of the location's
        listen 127.0.0.1:{stripped};
        location / {{ return 418; }}
        location /detections/ {{ proxy_pass {url}/; proxy_buffering off; proxy_request_buffering off; }}
    }}
"""


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("below")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", None, URL_PREFIX=PREFIX)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture(scope="module")
def proxies(below: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each proxy."""
    ports = {"unchanged": free_port(), "stripped": free_port()}
    servers = SERVERS.format(url=below.url, **ports)
    with Nginx(tmp_path_factory.mktemp("nginx"), servers, *ports.values()):
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


@pytest.fixture(params=["unchanged", "stripped", "no proxy"])
def host(request: pytest.FixtureRequest, below: Service) -> str:
    if request.param == "no proxy":
        return below.url
    urls: dict[str, str] = request.getfixturevalue("proxies")
    return urls[request.param]


def ask(method: str, url: str, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {ADMIN}"} | options.pop("headers", {})
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, headers=headers, timeout=60, allow_redirects=False, **options)


def test_every_address_that_is_given_out_lies_below_the_prefix(host: str) -> None:
    with PHOTO.open("rb") as photo:
        stored = ask("POST", f"{host}{PREFIX}/detect", files={"file": ("a.jpg", photo)})
    media_id = stored.json()["media"]["id"]
    assert stored.headers["Location"] == f"{PREFIX}/media/{media_id}"
    assert ask("GET", host + stored.headers["Location"]).json()["id"] == media_id
    link = ask("POST", f"{host}{PREFIX}/media/{media_id}/link").json()["url"]
    assert link.startswith(f"{PREFIX}/media/{media_id}/content?signature=")
    assert ask("GET", host + link, headers={"Authorization": ""}).content == PHOTO.read_bytes()
    events = ask("GET", f"{host}{PREFIX}/media/{media_id}/events").text
    assert "event: done" in events
    other = bytearray(PHOTO.read_bytes())
    other[len(other) // 4] ^= 0xFF
    collision = ask("POST", f"{host}{PREFIX}/media", files={"file": ("b.jpg", bytes(other))}).json()
    assert collision["mediaUrl"] == f"{PREFIX}/media/{media_id}"
    lost = ask("GET", f"{host}{PREFIX}/nothing").json()
    assert f"{PREFIX}/nothing" in lost["detail"]
    assert f"{PREFIX}/openapi.json" in lost["detail"]


def test_the_description_names_the_prefix_and_is_otherwise_the_same(host: str) -> None:
    answer = ask("GET", f"{host}{PREFIX}/openapi.json")
    written = json.loads((ROOT / "app" / "web" / "openapi.json").read_text())
    assert answer.json() == written | {"servers": [written["servers"][0] | {"url": PREFIX}]}
    again = ask("GET", f"{host}{PREFIX}/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_health_and_metrics_are_found_below_the_prefix_and_by_probes_that_come_directly(
    host: str, below: Service
) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/me", "/outbox"):
        assert ask("GET", f"{host}{PREFIX}{path}").status_code == 200
        assert ask("GET", f"{below.url}{path}").status_code == 200


@pytest.mark.parametrize("path", [f"{PREFIX}/", f"{PREFIX}/docs"])
def test_pages_load_nothing_from_outside_the_prefix(host: str, path: str) -> None:
    page = ask("GET", host + path)
    assert page.status_code == 200
    sources = re.findall(r'(?:href|src|data-document)="(/[^"]*)"', page.text)
    assert len(sources) > 4
    for source in sources:
        assert source.startswith(f"{PREFIX}/")
        assert ask("GET", host + source).status_code == 200


@pytest.mark.parametrize("path", ["/detectionsx/healthz", f"{PREFIX}{PREFIX}/healthz", f"/{PREFIX}/healthz"])
def test_what_only_looks_like_the_prefix_is_not_found(below: Service, path: str) -> None:
    assert ask("GET", below.url + path).status_code == 404


def test_the_upload_command_works_below_a_path(below: Service) -> None:
    sent = below.flask("media", "upload", str(PHOTO), "--url", below.url + PREFIX, "--token", ADMIN, "--json")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert json.loads(sent.stdout)


def test_a_prefix_must_not_begin_like_any_path_of_the_service_s_own(below: Service) -> None:
    """Otherwise a removed prefix could not be told from a kept one."""
    environment = below.environment | {"URL_PREFIX": ""}
    routes = create_app(Settings.from_env(environment)).url_map.iter_rules()
    first = {rule.rule.split("/")[1] for rule in routes} - {""}
    assert first <= OWN_PATHS


@pytest.mark.long
@pytest.mark.parametrize("proxy", later(["stripped"], "unchanged"))
def test_people_upload_and_see_a_photo_below_the_prefix(browser: Browser, proxies: dict[str, str], proxy: str) -> None:
    context = browser.new_context(viewport=ViewportSize(width=1280, height=800), reduced_motion="reduce")
    tab = Tab(context, proxies[proxy] + PREFIX)  # which records every request outside of the prefix
    photo = PHOTO.read_bytes() + proxy.encode()
    tab.sign_in(ADMIN)
    tab.choose((f"{proxy}.jpg", photo))
    tab.upload_row(f"{proxy}.jpg").get_by_role("link", name="Open").click()
    expect(tab.page.get_by_text("person").first).to_be_visible()
    picture = tab.page.locator("main img").first
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 0
    tab.page.get_by_role("link", name="Outbox").first.click()
    expect(tab.page.get_by_role("heading", name="Outbox").first).to_be_visible()
    tab.page.goto(f"{tab.url}/docs")
    expect(tab.page.get_by_text("Store a file, run detection, and return the result")).to_be_visible()
    context.close()
    assert tab.problems == []
