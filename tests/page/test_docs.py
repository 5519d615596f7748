"""The documentation page in a real browser."""

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from tests.system.service import Service, token


@pytest.mark.long
def test_a_browser_shows_every_call_without_asking_elsewhere_or_complaining(service: Service, browser: Browser) -> None:
    page = browser.new_page(viewport=ViewportSize(width=390, height=844))
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service.url}/docs")
    page.wait_for_selector("#operations-outbox-retryParked")
    page.click("#operations-outbox-retryParked .opblock-summary-control")
    page.wait_for_selector("#operations-outbox-retryParked .responses-wrapper")
    document = service.request("GET", "/openapi.json").json()
    items = [*document["paths"].values(), *document["webhooks"].values()]
    described = sum(method in item for item in items for method in ("get", "post", "put", "patch", "delete"))
    assert page.locator(".opblock").count() == described
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []
    assert [url for url in asked if not url.startswith((service.url, "data:"))] == []
    page.close()


@pytest.mark.long
def test_a_call_can_be_tried_out_as_it_stands_with_a_token_alone(service: Service, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{service.url}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").first.fill(token("ada"))
    page.get_by_label("Apply credentials").first.click()
    page.get_by_role("button", name="Close").first.click()
    call = page.locator("#operations-media-listMedia")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    expect(call.locator("tr[data-param-name=cursor]")).to_contain_text("For example")
    with page.expect_response("**/media?*") as answer:
        call.get_by_role("button", name="Execute").click()
    assert answer.value.ok, f"{answer.value.status}: {answer.value.text()}"
    assert "cursor" not in answer.value.url
    page.close()
