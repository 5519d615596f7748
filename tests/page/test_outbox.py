"""The outbox view for administrators, through an outage and its repair."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from app.media.hashing import media_id_of_bytes
from tests.eventually import eventually
from tests.outbox.refusals import refused_for_long
from tests.page.pictures import card
from tests.page.watched import Tab
from tests.reference.service import ReferenceService
from tests.system.service import Service, token

REFUSAL = "this installation takes no pictures of that size"
DRAIN_SECONDS = 60


@pytest.fixture(autouse=True)
def in_order(annotations: ReferenceService, service: Service, admin: str) -> Iterator[None]:
    """Each test starts and ends with a working annotations service and an empty outbox."""
    settle(annotations, service, admin)
    yield
    settle(annotations, service, admin)


def settle(annotations: ReferenceService, service: Service, admin: str) -> None:
    annotations.control(clear=True)
    annotations.start()
    headers = {"Authorization": f"Bearer {admin}"}
    service.request("POST", "/outbox/retry", json={"all": True}, headers=headers)
    eventually(
        lambda: not service.request("GET", "/outbox", headers=headers).json()["pending"],
        "the outbox to drain",
        seconds=DRAIN_SECONDS,
    )


def tile(tab: Tab, name: str) -> Locator:
    return tab.page.locator(".tile").filter(has_text=name).locator("dd")


def upload(service: Service, number: int) -> str:
    media_id: str = service.upload("/media", card(number), name=f"card {number}.png").json()["media"]["id"]
    return media_id


def upload_refused(service: Service, annotations: ReferenceService, number: int, status: int = 422) -> str:
    """Upload a media item whose first message the annotations service refuses once."""
    match = {"mediaId": media_id_of_bytes(card(number))}
    annotations.control(fail={"status": status, "body": REFUSAL, "match": match, "times": 2})
    media_id = upload(service, number)
    refused_for_long(service.environment["DATABASE_URL"], media_id)
    return media_id


@pytest.mark.long
def test_an_outage_opens_the_circuit_lets_the_backlog_grow_and_ends_with_everything_delivered(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    tab.sign_in(admin, "#/outbox")
    expect(tab.page.locator(".circuit")).to_contain_text("Circuit closed")
    expect(tile(tab, "Messages waiting")).to_have_text("0")
    annotations.stop()
    media_id = upload(service, 1000)
    expect(tile(tab, "Messages waiting")).to_have_text("1")
    expect(tab.page.locator(".circuit")).to_contain_text(
        re.compile("Connection refused.* (Next probe in|A probe is due now)")
    )
    expect(tab.page.get_by_role("row").filter(has_text=media_id).get_by_text("1. Create")).to_be_visible()
    for number in (1001, 1002, 1003):
        upload(service, number)
    expect(tile(tab, "Messages waiting")).to_have_text("4")
    expect(tile(tab, "Oldest message's age")).to_have_text(re.compile(r"^\d+ s$"))
    annotations.start()
    expect(tab.page.locator(".circuit")).to_contain_text("Circuit closed")
    expect(tile(tab, "Messages waiting")).to_have_text("0")
    expect(tab.page.get_by_text("No messages are waiting.")).to_be_visible()
    plot = tab.page.get_by_role("region", name="Throughput")
    expect(plot.get_by_role("img", name=re.compile(r"\d+ in the last hour, at most \d+ in a minute"))).to_be_visible()
    top, half, nothing = (int(figure) for figure in plot.locator(".plot-scale span").all_inner_texts())
    assert half == top // 2
    assert nothing == 0
    plot.get_by_text("As a table").click()
    expect(plot.get_by_role("cell", name=re.compile(r"\d+ messages?")).first).to_be_visible()


@pytest.mark.long
def test_all_parked_media_are_put_back_after_a_question(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    refused = [upload_refused(service, annotations, number) for number in (1100, 1101)]
    tab.sign_in(admin, "#/outbox")
    expect(tile(tab, "Parked media")).to_have_text("2")
    tab.page.get_by_role("radio", name="Parked").check()
    for media_id in refused:
        expect(tab.page.get_by_role("row").filter(has_text=media_id).get_by_text("answered 422")).to_be_visible()
    retry = tab.page.get_by_role("button", name="Retry all 2 parked media")
    retry.click()
    tab.page.get_by_role("button", name="Cancel").click()
    expect(retry).to_be_focused()
    expect(tile(tab, "Parked media")).to_have_text("2")
    retry.click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(tab.page.get_by_text("2 media items pending again")).to_be_visible()
    expect(tile(tab, "Parked media")).to_have_text("0")
    expect(tab.page.get_by_text("Nothing is parked.")).to_be_visible()
    annotations.wait_for(lambda log: {entry["mediaId"] for entry in log if entry["applied"]}.issuperset(refused))


@pytest.mark.long
def test_only_the_parked_media_whose_reason_matches_are_put_back(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    upload_refused(service, annotations, 1200, status=422)
    stays = upload_refused(service, annotations, 1201, status=413)
    tab.sign_in(admin, "#/outbox")
    expect(tile(tab, "Parked media")).to_have_text("2")
    tab.page.get_by_label("Text in the reason").fill("answered 422")
    tab.page.keyboard.press("Enter")
    tab.page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(tile(tab, "Parked media")).to_have_text("1")
    tab.page.get_by_role("radio", name="Parked").check()
    expect(tab.page.get_by_role("row").filter(has_text=stays)).to_be_visible()


def test_a_media_s_messages_are_shown_with_every_attempt_and_the_refused_one_can_be_skipped(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    media_id = upload_refused(service, annotations, 1300)
    tab.sign_in(admin, f"#/outbox/{media_id}")
    attempts = tab.page.get_by_role("region", name="Attempts of message 1")
    expect(attempts.get_by_text(REFUSAL).first).to_be_visible()
    expect(attempts.get_by_role("cell", name="422", exact=True).first).to_be_visible()
    tab.page.get_by_role("button", name="Skip this message").click()
    expect(tab.page.get_by_text("This cannot be undone")).to_be_visible()
    tab.page.get_by_role("button", name="Skip", exact=True).click()
    expect(tab.page.get_by_text("Skipped", exact=True)).to_be_visible()
    expect(tab.page.get_by_role("button", name="Skip this message")).to_be_hidden()
    expect(tab.page.get_by_text("1 of 1 completed")).to_be_visible()


@pytest.mark.long
def test_a_media_that_the_other_side_has_lost_is_sent_again_after_a_question(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    media_id = upload(service, 1320)
    annotations.wait_for(lambda log: any(entry["mediaId"] == media_id and entry["applied"] for entry in log))
    tab.sign_in(admin, f"#/outbox/{media_id}")
    expect(tab.page.get_by_text("1 of 1 completed")).to_be_visible()
    again = tab.page.get_by_role("button", name="Send again")
    again.click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Send again").click()
    expect(tab.page.get_by_text("Nothing is sent: the annotations service is up to date")).to_be_visible()
    annotations.forget([media_id])
    again.click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Send again").click()
    expect(tab.page.get_by_text("2 of 2 completed")).to_be_visible()
    expect(tab.page.get_by_role("heading", name="2. Create")).to_be_visible()


@pytest.mark.long
def test_of_a_parked_media_s_messages_only_the_refused_one_is_shown_as_parked(
    tab: Tab, service: Service, annotations: ReferenceService, admin: str
) -> None:
    media_id = upload_refused(service, annotations, 1350)
    service.request("POST", f"/detect/{media_id}")
    tab.sign_in(admin, f"#/outbox/{media_id}")
    expect(tab.page.locator(".history .badge")).to_have_text(["Parked", "Waiting", "Waiting"])


@pytest.mark.long
def test_a_media_tells_its_reader_why_its_messages_stopped(
    tab: Tab, service: Service, annotations: ReferenceService
) -> None:
    media_id = upload_refused(service, annotations, 1400)
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    delivery = tab.page.get_by_role("region", name="Delivery")
    expect(delivery.locator(".badge")).to_have_text("Parked")
    expect(delivery.get_by_text("POST /api/media answered 422")).to_be_visible()
    expect(delivery.get_by_text("HTTP 422")).to_be_visible()


def test_who_is_no_administrator_sees_no_outbox(tab: Tab) -> None:
    tab.sign_in(token("ada"), "#/outbox")
    expect(tab.page.get_by_role("heading", name="For administrators")).to_be_visible()
    expect(tab.page.get_by_role("link", name="Outbox")).to_be_hidden()
