"""Every view, light and dark, narrow and wide, checked by axe-core; and no motion with prefers-reduced-motion."""

import json
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from app.media.hashing import media_id_of_bytes
from tests.outbox.refusals import refused_for_long
from tests.page.conftest import OpenTab
from tests.page.pictures import ASTRONAUT, card, glimpse, unseen
from tests.page.watched import Tab
from tests.reference.service import ReferenceService
from tests.system.service import Service, token

SERIOUS = {"serious", "critical"}
LATER = [pytest.param(*view, marks=pytest.mark.long) for view in [(390, "light"), (1280, "dark"), (1280, "light")]]
VIEWS = [(390, "dark"), *LATER]


@pytest.fixture(scope="module")
def media(service: Service, annotations: ReferenceService, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A photo, a video and a parked media item, by kind."""
    clip = glimpse(tmp_path_factory.mktemp("clips")) + b"seen by axe"
    match = {"mediaId": media_id_of_bytes(card(2000))}
    annotations.control(fail={"status": 422, "body": "no", "match": match, "times": 2})
    files = {
        "photo": ("/detect", unseen(ASTRONAUT, "axe"), "axe.jpg"),
        "video": ("/detect", clip, "axe.mp4"),
        "parked": ("/media", card(2000), "axe.png"),
    }
    uploaded: dict[str, str] = {
        kind: service.upload(path, content, name=name).json()["media"]["id"]
        for kind, (path, content, name) in files.items()
    }
    refused_for_long(service.environment["DATABASE_URL"], uploaded["parked"])
    return uploaded


def assert_accessible(tab: Tab, view: str) -> None:
    found: list[dict[str, Any]] = Axe().run(tab.page).response["violations"]
    serious = [
        f"{view}: {one['id']}: {node['html'][:200]} {json.dumps(node['any'])[:400]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
    assert serious == []
    wide, window = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{view} is wider than its window"


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_no_view_has_a_serious_finding_or_is_wider_than_its_window(
    open_tab: OpenTab, media: dict[str, str], admin: str, width: int, scheme: str
) -> None:
    tab = open_tab(width, 800, scheme, bypass_csp=True)  # axe adds a style
    tab.expects(401, 415)
    tab.open()
    tab.page.get_by_label("Access token").fill("no.token.this")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("alert").filter(has_text="not accepted")).to_be_visible()
    assert_accessible(tab, "sign-in")
    tab.sign_in(admin)
    tab.choose(("axe.jpg", unseen(ASTRONAUT, "axe")), ("axe.txt", b"no picture"))
    expect(tab.upload_row("axe.txt")).to_contain_text("Unsupported file type")
    expect(tab.upload_row("axe.jpg")).to_contain_text("Already known · processed")
    assert_accessible(tab, "list")
    tab.open(f"#/media/{media['photo']}")
    expect(tab.page.locator(".box")).to_have_count(1)
    assert_accessible(tab, "photo")
    tab.open(f"#/media/{media['video']}")
    expect(tab.page.locator(".mark")).to_have_count(1)
    assert_accessible(tab, "video")
    tab.open(f"#/outbox/{media['parked']}")
    expect(tab.page.get_by_role("button", name="Skip this message")).to_be_visible()
    assert_accessible(tab, "history")
    tab.open("#/outbox")
    tab.page.get_by_role("radio", name="Parked").check()
    expect(tab.page.get_by_role("row").filter(has_text=media["parked"])).to_be_visible()
    assert_accessible(tab, "outbox")
    tab.page.get_by_role("button", name="Retry all").click()
    assert_accessible(tab, "question")


@pytest.mark.long
def test_nothing_moves_for_who_asked_for_that(tab: Tab) -> None:
    tab.sign_in(token("ada"))
    moving = tab.page.evaluate(
        """() => [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
            .filter(rule => rule.selectorText && /animation|transition/.test(rule.cssText))
            .map(rule => rule.selectorText)"""
    )
    assert moving == []  # animations are only in `prefers-reduced-motion: no-preference`
    tab.page.evaluate("document.body.append(document.createElement('progress'))")
    assert tab.page.locator("body > progress").evaluate("bar => getComputedStyle(bar).animationName") == "none"
