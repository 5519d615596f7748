"""The documentation page: everything comes from this service, and its policy allows all that it needs."""

import re
from html.parser import HTMLParser

import pytest

from tests.api.conftest import Api

PATHS = ("/docs", "/docs/")


class Parts(HTMLParser):
    """What a page loads, and its inline scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        source = named.get("src") or (named.get("href") if tag == "link" else None)
        if source:
            self.loaded.append(source)
        if tag == "style" or (tag == "script" and "src" not in named):
            self.within.append(tag)
        self.within += [name for name in named if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("path", PATHS)
def test_the_page_loads_its_own_files_alone_and_its_policy_says_so(api: Api, path: str) -> None:
    answer = api.app.test_client().get(path)
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    parts = Parts(answer.text)
    assert parts.within == []
    assert len(parts.loaded) == 5
    for source in parts.loaded:
        assert source.startswith("/docs/")
        with api.app.test_client().get(source) as file:
            assert file.status_code == 200, source
            assert len(file.data) > 0, source
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"unsafe|https?:|\*", answer.headers["Content-Security-Policy"])


@pytest.mark.parametrize("name", ["index.html", "openapi.json", "docs.py", "swagger-ui.js", "..%2Fauth.py", "%00"])
def test_no_other_file_is_given_out(api: Api, name: str) -> None:
    answer = api.app.test_client().get(f"/docs/{name}")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
