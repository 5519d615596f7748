"""Uploads from the file picker to the result."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import FilePayload, Route, expect

from app.media.hashing import media_id_of_bytes
from tests.page.pictures import ASTRONAUT, CHELSEA, card, unseen
from tests.page.watched import Tab
from tests.system.service import Service, token

SLOW_BYTES_PER_SECOND = 400_000


@contextmanager
def slow_network(tab: Tab) -> Iterator[None]:
    """Have the browser send slowly during the block."""
    devtools = tab.page.context.new_cdp_session(tab.page)
    limits = {"latency": 0, "downloadThroughput": -1, "offline": False}
    devtools.send("Network.enable")
    devtools.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": SLOW_BYTES_PER_SECOND})
    yield
    devtools.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})


def test_an_upload_shows_bytes_speed_and_time_left_then_its_run_and_then_its_result(tab: Tab) -> None:
    content = unseen(ASTRONAUT, "slow", size=1_200_000)
    tab.sign_in(token("ada"))
    row = tab.upload_row("slow.jpg")
    with slow_network(tab):
        tab.choose(("slow.jpg", content))
        expect(row.get_by_text(re.compile(r"[\d.]+ kB of 1\.2 MB · [\d.]+ kB/s · \d+ s left"))).to_be_visible()
        assert 0 < row.get_by_role("progressbar").evaluate("bar => bar.value / bar.max") < 1
    expect(row.locator(".upload-text")).to_have_text("processed")
    expect(row.get_by_role("progressbar")).to_be_hidden()
    row.get_by_role("link", name="Open slow.jpg").click()
    expect(tab.page.get_by_role("heading", name="slow.jpg")).to_be_visible()
    assert tab.page.url.endswith(f"#/media/{media_id_of_bytes(content)}")


@pytest.mark.long
def test_bytes_that_are_known_are_said_to_be_a_duplicate_and_lead_to_the_known_media(
    tab: Tab, service: Service
) -> None:
    content = unseen(CHELSEA, "twice")
    known = service.upload("/detect", content, name="first.jpg").json()["media"]["id"]
    tab.sign_in(token("ada"))
    tab.choose(("second.jpg", content))
    row = tab.upload_row("second.jpg")
    expect(row.get_by_text("Already known as first.jpg · processed")).to_be_visible()
    expect(row.get_by_role("link")).to_have_attribute("href", f"#/media/{known}")


@pytest.mark.long
def test_a_refusal_shows_the_problem_s_title_and_detail(tab: Tab, service: Service) -> None:
    tab.expects(415)
    problem = service.upload("/detect", b"no film", name="film.mp4").json()
    tab.sign_in(token("ada"))
    tab.choose(("film.mp4", b"no film"))
    row = tab.upload_row("film.mp4")
    expect(row.get_by_text(problem["title"], exact=True)).to_be_visible()
    expect(row.get_by_text(problem["detail"], exact=True)).to_be_visible()
    expect(row.get_by_role("button", name="Retry")).to_be_visible()


@pytest.mark.long
def test_a_file_that_no_decoder_takes_is_shown_as_stored_but_failed(tab: Tab) -> None:
    tab.sign_in(token("ada"))
    tab.choose(("broken.jpg", b"\xff\xd8\xff" + b"not a picture"))
    row = tab.upload_row("broken.jpg")
    expect(row.get_by_text("The file was stored, but detection failed")).to_be_visible()
    expect(row.get_by_role("link", name="Open broken.jpg")).to_be_visible()


@pytest.mark.long
def test_several_files_are_dropped_at_once_and_each_arrives(tab: Tab, service: Service) -> None:
    tab.sign_in(token("ada"))
    cards = {f"card {number}.png": card(number) for number in range(5)}
    transfer = tab.page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [[name, list(content)] for name, content in cards.items()],
    )
    tab.page.dispatch_event(".drop", "dragenter", {"dataTransfer": transfer})
    expect(tab.page.locator(".drop-over")).to_be_visible()
    tab.page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    expect(tab.page.get_by_text("processed", exact=True)).to_have_count(5)
    ids = {media_id_of_bytes(content) for content in cards.values()}
    assert ids <= {media["id"] for media in service.request("GET", "/media").json()["items"]}
    for name in cards:
        expect(tab.page.get_by_role("row").filter(has_text=name).get_by_text("Processed")).to_be_visible()


@pytest.mark.long
def test_a_cancelled_upload_stops_and_its_retry_finishes(tab: Tab, service: Service) -> None:
    content = unseen(ASTRONAUT, "cancelled", size=3_000_000)
    tab.sign_in(token("ada"))
    row = tab.upload_row("stopped.jpg")
    with slow_network(tab):
        tab.choose(("stopped.jpg", content))
        expect(row.get_by_text(re.compile(r"of 3\.0 MB"))).to_be_visible()
        row.get_by_role("button", name="Cancel").click()
        expect(row.get_by_text("Cancelled")).to_be_visible()
    assert service.request("GET", f"/media/{media_id_of_bytes(content)}").status_code == 404
    row.get_by_role("button", name="Retry").click()
    expect(row.locator(".upload-text")).to_have_text("processed")


@pytest.mark.long
def test_a_busy_service_is_waited_for_as_long_as_it_says(tab: Tab) -> None:
    tab.expects(503)
    answers: list[int] = []
    busy = {"type": "urn:x", "title": "Not available now", "status": 503, "detail": "All slots are taken."}

    def refuse_once(route: Route) -> None:
        answers.append(1)
        if len(answers) > 1:
            route.continue_()
            return
        headers = {"Content-Type": "application/problem+json", "Retry-After": "2"}
        route.fulfill(status=503, headers=headers, body=json.dumps(busy))

    tab.sign_in(token("ada"))
    tab.page.route("**/detect", refuse_once)
    tab.choose(("patient.png", card(300)))
    row = tab.upload_row("patient.png")
    expect(row.get_by_text(re.compile("Not available now · trying again in [12] s"))).to_be_visible()
    expect(row.locator(".upload-text")).to_have_text("processed")
    assert len(answers) == 2


@pytest.mark.long
def test_everything_from_the_token_to_the_boxes_can_be_done_with_the_keyboard_alone(tab: Tab) -> None:
    # Long before it is needed, because Playwright does not wait until the browser reports file choosers.
    tab.page.on("filechooser", lambda _chooser: None)
    tab.open()
    expect(tab.page.get_by_label("Access token")).to_be_visible()
    tab_to(tab, "Access token")
    tab.page.keyboard.insert_text(token("ada"))
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="Media", level=1)).to_be_visible()
    tab_to(tab, "Choose files")
    with tab.page.expect_file_chooser() as chooser:
        tab.page.keyboard.press("Enter")
    content = unseen(ASTRONAUT, "keyboard")
    chooser.value.set_files([FilePayload(name="keys.jpg", mimeType="image/jpeg", buffer=content)])
    expect(tab.upload_row("keys.jpg").get_by_text("processed", exact=True)).to_be_visible()
    tab_to(tab, "Open keys.jpg")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="keys.jpg")).to_be_focused()
    expect(tab.page.locator(".box")).to_have_count(1)
    tab_to(tab, "person")
    tab.page.keyboard.press("Space")
    expect(tab.page.locator(".box")).to_have_count(0)
    tab_to(tab, "Sign out", backwards=True)


def tab_to(tab: Tab, name: str, *, backwards: bool = False) -> None:
    """Press the tab key until the named element has the focus, and check that the focus is visible."""
    for _ in range(40):
        focused = tab.page.evaluate(
            """() => {
                const node = document.activeElement;
                const label = node.labels?.[0]?.textContent ?? node.textContent;
                return {name: node.getAttribute("aria-label") ?? label, outline: getComputedStyle(node).outlineWidth};
            }"""
        )
        if name in focused["name"] and focused["name"].strip() and len(focused["name"]) < 60:
            assert focused["outline"] == "3px", focused
            return
        tab.page.keyboard.press("Shift+Tab" if backwards else "Tab")
    raise AssertionError(f"the tab key does not come to {name!r}")
