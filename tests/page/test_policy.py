"""How the page is served: its policy and types, and that it is complete and loads nothing from other hosts."""

import re

import pytest
import requests

from app.web.views.page import FOLDER, PAGE
from tests.system.service import Service

FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "media-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}


def get(service: Service, path: str, **headers: str) -> requests.Response:
    """Send a request as a browser without a session."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(service.url + path, headers=headers, timeout=30)


def test_the_page_needs_no_token_and_comes_with_its_policy(service: Service) -> None:
    answer = get(service, "/")
    assert answer.status_code == 200
    assert set(answer.headers["Content-Security-Policy"].split("; ")) >= POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    again = get(service, "/", **{"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Content-Security-Policy"] == answer.headers["Content-Security-Policy"]


def test_every_file_is_served_with_its_type_and_asked_for_again_only_when_it_has_changed(service: Service) -> None:
    for path in FILES:
        name = path.relative_to(FOLDER).as_posix()
        answer = get(service, f"/static/{name}")
        assert answer.content == path.read_bytes(), name
        assert answer.headers["Content-Type"] == TYPES[path.suffix], name
        again = get(service, f"/static/{name}", **{"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304, name
        assert again.headers["Content-Security-Policy"], name


@pytest.mark.parametrize(
    "name", ["", "index.html", "..%2fpage.py", "%2e%2e%2fopenapi.json", "js/none.js", "js", ".hidden.js"]
)
def test_nothing_but_the_page_s_own_files_is_served(service: Service, name: str) -> None:
    answer = get(service, f"/static/{name}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_every_file_that_is_asked_for_is_there_and_every_file_is_asked_for() -> None:
    asked = {FOLDER / name for name in re.findall(r"'page.asset', name='([^']+)'", PAGE)}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        asked |= {FOLDER / name for name in re.findall(r'"/static/([^"]+)"', text)}
        asked |= {path.parent / name for name in re.findall(r'from "\./([^"]+)"', text)}
    assert asked == set(FILES)


def test_no_file_names_another_host() -> None:
    namespace = "http://www.w3.org/2000/svg"
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace(namespace, "")
        assert not re.search(r"""https?://|["'(]//""", text), path.name
