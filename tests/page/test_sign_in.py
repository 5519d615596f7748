"""Signing in, being signed out, and signing out."""

import pytest
from playwright.sync_api import expect

from tests.page.watched import Tab
from tests.system.service import token


def test_a_token_that_the_service_refuses_is_answered_with_its_reason(tab: Tab) -> None:
    tab.expects(401)
    tab.open()
    tab.page.get_by_label("Access token").fill(token("ada", exp=1_000_000_000))
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("alert").filter(has_text="expired")).to_be_visible()
    expect(tab.page.get_by_label("Access token")).to_be_focused()
    assert tab.page.evaluate("sessionStorage.length") == 0


@pytest.mark.long
def test_what_cannot_be_a_token_is_said_without_asking_anybody(tab: Tab) -> None:
    tab.open()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/me") else None)
    tab.page.get_by_label("Access token").fill("päste")
    tab.page.get_by_role("button", name="Sign in").click()
    expect(tab.page.get_by_role("alert").filter(has_text="This is not a token")).to_be_visible()
    assert asked == []


@pytest.mark.long
def test_a_token_is_kept_for_this_tab_only_and_outlives_a_reload(tab: Tab) -> None:
    tab.sign_in(token("ada"))
    tab.page.reload()
    expect(tab.page.get_by_role("heading", name="Media", level=1)).to_be_visible()
    assert tab.page.evaluate("localStorage.length") == 0
    assert tab.page.evaluate("document.cookie") == ""
    assert "token" not in tab.page.url


@pytest.mark.long
def test_a_token_that_is_refused_later_leads_back_with_the_reason_and_then_to_the_same_view(
    tab: Tab, admin: str
) -> None:
    tab.expects(401)
    tab.sign_in(admin, "#/outbox")
    tab.page.evaluate("sessionStorage.setItem('detections.token', 'no.longer.good')")
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(tab.page.get_by_role("alert").filter(has_text="The token was not accepted")).to_be_visible()
    tab.page.get_by_label("Access token").fill(admin)
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="Outbox", level=1)).to_be_focused()


@pytest.mark.long
def test_signing_out_forgets_the_token(tab: Tab) -> None:
    tab.sign_in(token("ada"))
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert tab.page.evaluate("sessionStorage.length") == 0
    tab.page.reload()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
