"""CORS: pages of the configured origins may call the API from a browser, others may not."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from app.media.hashing import media_id_of_bytes
from tests.api.conftest import Api, picture, settings_in
from tests.api_description.description import API, described_parameters, operations

SUITE, LOCAL = "https://suite.example", "http://[::1]:5173"
OTHERS = (
    "https://suite.example.evil.test",
    "https://suite-example",
    "https://sub.suite.example",
    "http://suite.example",
    "https://suite.example:8443",
    "http://1:5173",
    "http://::5173",
    "null",
)
ALLOWED = "Access-Control-Allow-Origin"
READ_ANYWAY = {
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
}
"""What fetch lets every page read (CORS-safelisted response headers)."""


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Api]:
    """One application for all tests here, with two allowed origins."""
    more = {"CORS_ORIGINS": f"{SUITE}, {LOCAL}"}
    with closing(Api(settings_in(tmp_path_factory.mktemp("cross"), sqlite_template, None, more))) as running:
        running.services.start()
        yield running


def preflight(api: Api, path: str, origin: str, method: str = "POST", headers: str = "authorization") -> TestResponse:
    return api.app.test_client().options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )


def words(answer: TestResponse, header: str) -> set[str]:
    return {word.strip().lower() for word in answer.headers.get(header, "").split(",")} - {""}


@pytest.mark.parametrize("origin", [SUITE, LOCAL])
def test_a_page_of_an_allowed_origin_may_call_and_read_the_answer(cross: Api, origin: str) -> None:
    cross.upload("/media", picture(1))
    media_id = media_id_of_bytes(picture(1))
    answers = [
        (cross.get("/media", headers={"Origin": origin}), 200),
        (cross.upload("/media", picture(1), headers={"Origin": origin}), 200),
        (cross.get(f"/media/{media_id}/content", headers={"Origin": origin, "Range": "bytes=0-9"}), 206),
        (cross.get("/media/none", headers={"Origin": origin}), 404),
        (cross.get("/no-such-path", headers={"Origin": origin}), 404),
        (cross.request("DELETE", "/media", headers={"Origin": origin}), 405),
        (cross.get("/media", headers={"Origin": origin, "Authorization": "Bearer x"}), 401),
        (cross.get("/outbox", headers={"Origin": origin}), 403),
        (cross.upload("/media", b"", headers={"Origin": origin}), 400),
    ]
    for answer, status in answers:
        assert answer.status_code == status
        assert answer.headers.getlist(ALLOWED) == [origin]
        assert answer.headers.getlist("Vary") == ["Origin"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert words(answer, "Access-Control-Expose-Headers") >= {"location", "etag", "retry-after", "allow"}
        answer.close()


def test_a_browser_may_ask_first_without_a_token(cross: Api) -> None:
    paths = ("/detect", "/media", "/media/none/content", "/media/none/events", "/outbox/retry", "/me", "/docs", "/")
    for path in (*paths, "/no/such/path", "/media//none", "//media"):
        for method in ("POST", "GET", "DELETE", "BREW"):
            answer = preflight(cross, path, SUITE, method, headers="authorization,x-other")
            assert 200 <= answer.status_code < 300
            assert answer.headers.getlist(ALLOWED) == [SUITE]
            assert answer.headers.getlist("Vary") == ["Origin"]
            assert {"authorization", "content-type"} <= words(answer, "Access-Control-Allow-Headers")
            assert "x-other" not in words(answer, "Access-Control-Allow-Headers")
            assert {"get", "head", "post", "options"} <= words(answer, "Access-Control-Allow-Methods")
            assert "brew" not in words(answer, "Access-Control-Allow-Methods")
            assert int(answer.headers["Access-Control-Max-Age"]) > 0
            assert answer.data == b""


def test_every_header_that_the_description_names_may_be_sent_and_read(cross: Api) -> None:
    sent, read = set(), {"allow"}  # of 405, described once for all calls
    for path, _method, operation in operations():
        sent |= {p["name"].lower() for p in described_parameters(path, operation) if p["in"] == "header"}
        for response in operation["responses"].values():
            read |= {name.lower() for name in API.resolved(response)["headers"]}
    answer = preflight(cross, "/detect", SUITE)
    assert sent | {"authorization", "content-type"} <= words(answer, "Access-Control-Allow-Headers")
    exposed = words(cross.get("/media", headers={"Origin": SUITE}), "Access-Control-Expose-Headers")
    assert read - READ_ANYWAY <= exposed


def test_a_page_can_tell_an_unknown_path_from_a_network_that_is_down(cross: Api) -> None:
    assert preflight(cross, "/no/such/path", SUITE).status_code == 204
    answer = cross.get("/no/such/path", headers={"Origin": SUITE})
    assert answer.status_code == 404
    assert answer.headers[ALLOWED] == SUITE
    wrong_method = cross.request("PATCH", "/media", headers={"Origin": SUITE})
    assert wrong_method.status_code == 405
    assert wrong_method.headers[ALLOWED] == SUITE


def test_who_only_asks_for_options_is_told_the_methods_of_that_path(cross: Api) -> None:
    answer = cross.app.test_client().options("/detect", headers={"Origin": SUITE})
    assert words(answer, "Allow") == {"options", "post"}


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_another_origin_is_told_nothing(cross: Api, origin: str) -> None:
    for answer in (preflight(cross, "/detect", origin), cross.get("/media", headers={"Origin": origin})):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
        assert "origin" in words(answer, "Vary")


def test_an_answer_to_no_page_is_not_kept_for_one(cross: Api) -> None:
    answer = cross.get("/media")
    assert "origin" in words(answer, "Vary")
    assert ALLOWED not in answer.headers


def test_without_the_setting_no_page_of_another_origin_may_call(api: Api) -> None:
    for answer in (preflight(api, "/detect", SUITE), api.get("/media", headers={"Origin": SUITE})):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
