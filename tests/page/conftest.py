"""Headless Chromium against the real service and the reference annotations service.

There is one service and one browser for all tests here; each test has its own browser context and media items.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from tests.page.pictures import ASTRONAUT
from tests.page.watched import Tab
from tests.reference.service import ReferenceService
from tests.system.service import SECRET, Service, token

OpenTab = Callable[..., Tab]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine, so nobody looks at the page: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path_factory.mktemp("annotations") / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, annotations: ReferenceService
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", annotations.url, FRAME_INTERVAL_SECONDS="0.25")
    try:
        service.start()
        # The detector starts with the first picture, which on a busy machine takes longer than the browser's timeout.
        assert service.upload("/detect?persist=false", ASTRONAUT, name="warm.jpg").status_code == 200
        yield service
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def admin() -> str:
    """An administrator's token."""
    return token("grace", roles=["admin"])


@pytest.fixture
def open_tab(browser: Browser, service: Service) -> Iterator[OpenTab]:
    """Opens watched tabs; at the end of the test none may have reported an error."""
    tabs: list[Tab] = []

    def open_tab(
        width: int = 1280, height: int = 800, scheme: str = "light", *, bypass_csp: bool = False, url: str = ""
    ) -> Tab:
        context = browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            bypass_csp=bypass_csp,
        )
        tabs.append(Tab(context, url or service.url))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.context.close()
    assert [trouble for tab in tabs for trouble in tab.problems] == []


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    return open_tab()
