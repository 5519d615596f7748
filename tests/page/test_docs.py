"""The page that shows the API's description, in a real browser."""

from playwright.sync_api import Browser

from tests.system.service import Service


def test_a_browser_shows_every_call_without_asking_elsewhere_or_complaining(service: Service, browser: Browser) -> None:
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{service.url}/docs")
    page.wait_for_selector("#operations-outbox-retryParked")
    page.click("#operations-outbox-retryParked .opblock-summary-control")
    page.wait_for_selector("#operations-outbox-retryParked .responses-wrapper")
    paths = service.request("GET", "/openapi.json").json()["paths"]
    described = sum(method in item for item in paths.values() for method in ("get", "post"))
    assert page.locator(".opblock").count() == described
    assert said == []
    assert [url for url in asked if not url.startswith((service.url, "data:"))] == []
    page.close()
