"""Every response has the security headers."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from app.media.hashing import media_id_of_bytes
from tests.api.conftest import Api, MakeApi, picture

CONTENT = picture(1)
MEDIA_ID = media_id_of_bytes(CONTENT)
OF_ALL = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
OF_DATA = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def assert_headers(answer: Response, expected: dict[str, str]) -> None:
    assert {name: answer.headers.getlist(name) for name in expected} == {
        name: [value] for name, value in expected.items()
    }


Call = Callable[[Api], TestResponse]
ANSWERS: dict[str, tuple[int, Call]] = {
    "stored": (200, lambda api: api.upload("/media", CONTENT)),
    "list": (200, lambda api: api.get("/media")),
    "record": (200, lambda api: api.get(f"/media/{MEDIA_ID}")),
    "head": (200, lambda api: api.request("HEAD", f"/media/{MEDIA_ID}")),
    "options": (200, lambda api: api.request("OPTIONS", "/media")),
    "events": (200, lambda api: api.get(f"/media/{MEDIA_ID}/events")),
    "detection in memory": (200, lambda api: api.upload("/detect?persist=false", CONTENT)),
    "health": (200, lambda api: api.get("/healthz")),
    "metrics": (200, lambda api: api.get("/metrics")),
    "bad parameter": (400, lambda api: api.get("/media?limit=x")),
    "no token": (401, lambda api: api.get("/media", headers={"Authorization": ""})),
    "unknown media": (404, lambda api: api.get("/media/0123456789abcdef")),
    "unknown route": (404, lambda api: api.get("/%3Cscript%3E")),
    "wrong method": (405, lambda api: api.request("DELETE", "/media")),
    "other version": (412, lambda api: api.get(f"/media/{MEDIA_ID}/content", headers={"If-Match": '"other"'})),
    "wrong range": (416, lambda api: api.get(f"/media/{MEDIA_ID}/content", headers={"Range": "bytes=999999999-"})),
    "unsupported": (415, lambda api: api.upload("/media", CONTENT, "a.svg")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_data_are_not_to_be_run_framed_or_kept(api: Api, name: str) -> None:
    api.upload("/media", CONTENT)
    status, call = ANSWERS[name]
    with call(api) as answer:
        assert answer.status_code == status
        assert_headers(answer, OF_ALL | OF_DATA)


def test_a_failure_of_ours_has_them_too(make_api: MakeApi) -> None:
    api = make_api()

    @api.app.get("/broken")
    def broken() -> str:
        raise RuntimeError("a bug")

    answer = api.get("/broken")
    assert answer.status_code == 500
    assert_headers(answer, OF_ALL | OF_DATA)


def test_a_view_may_set_its_own(make_api: MakeApi) -> None:
    api = make_api()
    own = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60"}

    @api.app.get("/own")
    def page() -> tuple[str, dict[str, str]]:
        return "a page", own

    assert_headers(api.get("/own"), OF_ALL | own)


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}, {"If-None-Match": f'"{MEDIA_ID}"'}])
def test_content_may_be_shown_by_pages_elsewhere_but_never_run_or_shared(api: Api, headers: dict[str, str]) -> None:
    api.upload("/media", CONTENT)
    own = {"Cross-Origin-Resource-Policy": "cross-origin", "Cache-Control": "private, no-cache"}
    with api.get(f"/media/{MEDIA_ID}/content", headers=headers) as answer:
        assert answer.status_code in (200, 206, 304)
        assert_headers(answer, OF_ALL | {"Content-Security-Policy": OF_DATA["Content-Security-Policy"]} | own)


def test_no_route_goes_without_them(api: Api) -> None:
    for rule in api.app.url_map.iter_rules():
        path = re.sub("<[^>]*>", "0123456789abcdef", rule.rule)
        for method in rule.methods or ():
            options: dict[str, Any] = {"headers": {"Authorization": ""}}
            with api.request(method, path, **options) as answer:
                assert_headers(answer, OF_ALL)
                assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], (method, path)
                assert answer.headers["Cross-Origin-Resource-Policy"]
                assert answer.headers["Cache-Control"]
