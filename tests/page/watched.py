"""A watched browser tab: errors that a test does not expect fail it."""

import re
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, FilePayload, Locator, Page, Request, expect

WAIT_SECONDS = 20
expect.set_options(timeout=WAIT_SECONDS * 1000)

TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy violated: ${event.violatedDirective} by ${event.blockedURI || event.sourceFile}`);
});
"""


class Tab:
    """A tab on the service at `url`.

    `problems` must be empty at the end: console errors, exceptions, policy violations, requests to other hosts. A test
    names expected errors beforehand with `expects`.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.problems: list[str] = []
        self._expected: set[int] = set()
        self._expects_breaks = False
        context.add_init_script(TELL_VIOLATIONS)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_SECONDS * 1000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._asked)

    def expects(self, *statuses: int) -> None:
        """Expect these failed requests, which the browser reports as errors."""
        self._expected |= set(statuses)

    def expects_breaks(self) -> None:
        """Expect broken connections, which the browser reports as errors."""
        self._expects_breaks = True

    def open(self, view: str = "") -> None:
        """Load the page, or open another view."""
        self.page.goto(f"{self.url}/{view}")

    def sign_in(self, token: str, view: str = "") -> None:
        self.open(view)
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def choose_path(self, path: Path) -> None:
        """Select a file on disk, with its modification time."""
        self.page.locator("input[type=file]").set_input_files(path)

    def choose(self, *files: tuple[str, bytes]) -> None:
        """Select files as the page's file picker does."""
        given = [FilePayload(name=name, mimeType="", buffer=content) for name, content in files]
        self.page.locator("input[type=file]").set_input_files(given)

    def upload_row(self, name: str) -> Locator:
        return self.page.get_by_role("list", name="Uploads").get_by_role("listitem").filter(has_text=name)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        refused = re.search(r"the server responded with a status of (\d+)", message.text)
        if refused and int(refused[1]) in self._expected:
            return
        if self._expects_breaks and "net::ERR_" in message.text:
            return
        self.problems.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", f"blob:{self.url}/")):
            self.problems.append(f"request to another host: {request.url}")
