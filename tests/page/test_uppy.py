"""Uppy and its tus plugin, unmodified, in a page of another origin: through a link that is cut, and through nginx.

Its packages are pinned and installed as tests/resumable_clients has it.
"""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.long import later
from tests.resumable_clients.packages import HERE, INSTALL_SECONDS, bundle
from tests.servers.cutting_proxy import CuttingProxy
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.system.service import Service, token
from tests.system.test_resumable_uploads import MIB, assert_whole, clip, port_of

PAGE = '<!doctype html><title>Elsewhere</title><input type="file"><script type="module" src="page.js"></script>'

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 60)


class Quiet(SimpleHTTPRequestHandler):
    """Gives files out without a word."""

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where somebody else's page with Uppy is served."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "index.html").write_text(PAGE)
    bundle(HERE / "uppy.mjs", folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, origin: str) -> Iterator[Service]:
    """The service, which lets that page call."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "detections.db").write_bytes(sqlite_template.read_bytes())
    service = Service(folder, f"sqlite:///{folder}/detections.db", None, DETECTION="off", CORS_ORIGINS=origin)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(origin)
    yield page
    context.close()


def send(page: Page, url: str, file: Path, **options: Any) -> Any:
    """Have Uppy send a file; returns the uploads' addresses and the errors that it tells."""
    page.locator("input").set_input_files(file)
    options |= {"endpoint": f"{url}/uploads", "headers": {"Authorization": f"Bearer {token()}"}}
    return page.evaluate("options => send(options, document.querySelector('input').files[0])", options)


@pytest.mark.parametrize("parallel", later([3], 1))
def test_uppy_survives_a_link_that_is_cut_every_few_mebibytes(
    page: Page, service: Service, tmp_path: Path, parallel: int
) -> None:
    content = clip(12 * MIB)
    file = tmp_path / "Ferien – Äpfel.mp4"
    file.write_bytes(content)
    with CuttingProxy(port_of(service.url), [2 * MIB * number for number in range(1, 5)]) as proxy:
        told = send(page, proxy.url, file, parallelUploads=parallel)
        assert told["errors"] == []
        assert proxy.cuts == []
    [address] = told["addresses"]
    state = service.request("GET", address.removeprefix(proxy.url)).json()
    assert state["state"] == "complete"
    assert state["media"]["name"] == file.name
    assert_whole(service, content)


@pytest.mark.long
def test_uppy_gets_through_a_proxy_that_takes_no_body_of_a_hundred_megabytes_and_no_patch(
    page: Page, service: Service, tmp_path: Path
) -> None:
    content = clip(MIB) + bytes(104 * MIB)
    file, port = tmp_path / "clip.mp4", free_port()
    file.write_bytes(content)
    server = f"""
        server {{
            listen 127.0.0.1:{port};
            client_max_body_size 100m;
            location / {{
                limit_except GET POST OPTIONS {{ deny all; }}
                proxy_pass {service.url};
                proxy_http_version 1.1;
            }}
        }}
    """
    with Nginx(tmp_path, server, port):
        told = send(page, f"http://127.0.0.1:{port}", file, chunkSize=64 * MIB, overridePatchMethod=True)
    assert told["errors"] == []
    assert_whole(service, content)
