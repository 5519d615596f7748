"""Large files from the page: after an interruption the upload continues after the bytes that the service has.

Parts have 256 KiB here, as set in the page's address, and the link to the service breaks or stalls when a test says so.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from app.media.hashing import media_id_of_bytes
from tests.page.conftest import OpenTab
from tests.page.pictures import ASTRONAUT, unseen
from tests.page.watched import Tab
from tests.servers.cutting_proxy import CuttingProxy
from tests.system.service import Service, token

SIZE = 1_500_000
HALF = SIZE // 2
SENDING = re.compile(r"kB of 1\.5 MB")
RESUMED = re.compile(r"of 1\.5 MB · resumed at (\d+ kB|1\.\d MB)")
VIEW = "?partSize=0.25"
TUS = {"Tus-Resumable": "1.0.0"}

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def link(service: Service) -> Iterator[CuttingProxy]:
    with CuttingProxy(int(service.url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def tab(open_tab: OpenTab, link: CuttingProxy) -> Tab:
    """A tab whose link to the service can break, signed in."""
    tab = open_tab(url=link.url)
    tab.expects_breaks()
    tab.page.on("dialog", lambda dialog: dialog.accept())
    tab.sign_in(token("ada"), VIEW)
    return tab


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "large.jpg"
    path.write_bytes(unseen(ASTRONAUT, "", size=SIZE - 16) + os.urandom(16))  # the end is part of the id's sample
    return path


def stop_at_half(tab: Tab, link: CuttingProxy, photo: Path) -> None:
    """Have the page send a file until the link stands still."""
    link.hold_after(HALF)
    tab.choose_path(photo)
    expect(tab.upload_row("large.jpg").get_by_text(SENDING)).to_be_visible()
    while link.is_flowing:
        tab.page.wait_for_timeout(20)


def finish(tab: Tab, service: Service, link: CuttingProxy, photo: Path) -> None:
    """Let the link flow, and see that the file arrives as it is and that nothing is remembered of it."""
    link.release()
    expect(tab.upload_row("large.jpg").locator(".upload-text")).to_have_text("processed")
    media_id = media_id_of_bytes(photo.read_bytes())
    assert service.request("GET", f"/media/{media_id}/content").content == photo.read_bytes()
    assert remembered(tab) == []


def remembered(tab: Tab) -> list[str]:
    """All that the page has stored in the browser for longer than the tab lives."""
    found: list[str] = tab.page.evaluate("() => Object.entries(localStorage).flat()")
    return found


def test_after_a_break_the_upload_goes_on_from_the_bytes_that_are_there(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    def disconnect() -> None:
        link.target = 1  # where nobody listens: what breaks the browser sends again by itself, over any connection
        link.cut_all()

    before, target = link.passed, link.target
    link.on_cut = disconnect
    link.cut_after(HALF)
    tab.choose_path(photo)
    row = tab.upload_row("large.jpg")
    expect(row.get_by_text(re.compile(r"The service cannot be reached · trying again in \d s"))).to_be_visible()
    link.hold_after(300_000)
    link.target = target
    expect(row.get_by_text(RESUMED)).to_be_visible()
    finish(tab, service, link, photo)
    assert link.passed - before < SIZE + 2 * 256 * 1024, "more was sent again than the part that broke, once by each"


def test_after_a_reload_the_same_file_chosen_again_goes_on(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    stop_at_half(tab, link, photo)
    tab.page.reload()
    expect(tab.page.get_by_role("button", name="Sign out")).to_be_visible()
    place, value = remembered(tab)
    assert re.fullmatch(
        r'detections\.upload:\["/uploads","ada","large\.jpg",1500000,\d+\]\{"id":"[0-9a-f]+","at":\d+\}', place + value
    )
    link.hold_after(100_000)
    tab.choose_path(photo)
    expect(tab.upload_row("large.jpg").get_by_text(RESUMED)).to_be_visible()
    finish(tab, service, link, photo)


@pytest.mark.long
def test_an_upload_is_paused_and_goes_on_when_its_user_wants_it(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    stop_at_half(tab, link, photo)
    row = tab.upload_row("large.jpg")
    row.get_by_role("button", name="Pause large.jpg").click()
    expect(row.get_by_text(re.compile(r"Paused · .* of 1\.5 MB"))).to_be_visible()
    link.release()
    link.hold_after(100_000)
    row.get_by_role("button", name="Resume large.jpg").click()
    expect(row.get_by_text(RESUMED)).to_be_visible()
    finish(tab, service, link, photo)
    expect(row.get_by_role("button", name="Pause")).to_be_hidden()


@pytest.mark.long
def test_pausing_and_resuming_thirty_times_within_a_second_loses_nothing(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    stop_at_half(tab, link, photo)
    link.release()
    tab.upload_row("large.jpg").get_by_role("button", name="Pause").evaluate(
        """async (button) => {
            for (let clicks = 0; clicks < 60; clicks += 1) {
                button.click();
                await new Promise((resolve) => setTimeout(resolve, 15));
            }
        }"""
    )
    resume = tab.upload_row("large.jpg").get_by_role("button", name="Resume")
    if resume.is_visible():
        resume.click()
    finish(tab, service, link, photo)


@pytest.mark.long
def test_a_service_that_is_killed_and_started_again_has_the_upload_still(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    tab.expects(404, 409)  # a browser may send a part again by itself, which the service answers with the right offset
    before = link.passed
    stop_at_half(tab, link, photo)
    service.kill()
    service.start()
    link.target = int(service.url.rpartition(":")[2])
    link.cut_all()
    link.release()
    finish(tab, service, link, photo)
    assert link.passed - before < SIZE + 2 * 256 * 1024, "more was sent again than the part that broke, once by each"


@pytest.mark.long
def test_an_upload_that_is_gone_begins_anew(tab: Tab, service: Service, link: CuttingProxy, photo: Path) -> None:
    tab.expects(404)
    stop_at_half(tab, link, photo)
    row = tab.upload_row("large.jpg")
    row.get_by_role("button", name="Pause").click()
    expect(row.get_by_text("Paused")).to_be_visible()
    assert service.request("DELETE", f"/uploads/{upload_id(tab)}", headers=TUS).status_code == 204
    row.get_by_role("button", name="Resume").click()
    finish(tab, service, link, photo)


def upload_id(tab: Tab) -> str:
    found = re.search(r'"id":"([0-9a-f]+)"', " ".join(remembered(tab)))
    assert found
    return found[1]


@pytest.mark.long
def test_a_cancelled_upload_is_forgotten_here_and_there(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    stop_at_half(tab, link, photo)
    address = f"/uploads/{upload_id(tab)}"
    row = tab.upload_row("large.jpg")
    row.get_by_role("button", name="Pause").click()
    link.release()
    expect(row.get_by_text("Paused")).to_be_visible()
    with tab.page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        row.get_by_role("button", name="Cancel large.jpg").click()
    assert deleted.value.status == 204
    expect(row.get_by_text("Cancelled")).to_be_visible()
    assert remembered(tab) == []
    assert service.request("GET", address).status_code == 404


@pytest.mark.long
def test_a_refusal_at_the_end_shows_the_problem(tab: Tab, service: Service, photo: Path) -> None:
    tab.expects(409)
    other = bytearray(photo.read_bytes())
    other[HALF // 2] ^= 1  # which the id's sample leaves out
    known = service.upload("/detect", bytes(other), name="other.jpg").json()["media"]["id"]
    tab.choose_path(photo)
    row = tab.upload_row("large.jpg")
    expect(row.get_by_text("The id exists with other content")).to_be_visible()
    expect(row.get_by_role("link", name="Open large.jpg")).to_have_attribute("href", f"#/media/{known}")
    assert remembered(tab) == []


@pytest.mark.long
def test_an_offset_below_the_one_that_was_acknowledged_is_gone_on_from(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    tab.expects(409)
    stop_at_half(tab, link, photo)
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.method != "PATCH" or refused:
            route.continue_()
            return
        refused.append(route.request.headers["upload-offset"])
        headers = {"Content-Type": "application/problem+json", "Upload-Offset": "0"}
        route.fulfill(status=409, headers=headers, body='{"title": "The part does not begin where the last one ended"}')

    tab.page.route("**/uploads/*", refuse_once)
    finish(tab, service, link, photo)
    assert int(refused[0]) > 0


@pytest.mark.long
def test_the_same_file_in_two_tabs_is_sent_by_each_and_kept_once(
    tab: Tab, service: Service, link: CuttingProxy, photo: Path
) -> None:
    stop_at_half(tab, link, photo)
    first = upload_id(tab)
    other = tab.page.context.new_page()
    other.goto(f"{tab.url}/{VIEW}")
    other.get_by_label("Access token").fill(token("ada"))
    other.get_by_role("button", name="Sign in").click()
    other.locator("input[type=file]").set_input_files(photo)
    row = other.get_by_role("list", name="Uploads").get_by_role("listitem")
    expect(row.locator(".upload-text")).to_have_text("processed")
    assert upload_id(tab) == first  # which the other tab has left alone
    link.release()
    expect(tab.upload_row("large.jpg").locator(".upload-text")).to_have_text("Already known · processed")
    assert remembered(tab) == []
