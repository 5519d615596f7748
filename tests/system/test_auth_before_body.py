"""No route looks at a body, or invites one, for a client without a good token: over the wire, for every route there is.

The routes come from the application's own map, so a new one cannot be forgotten.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from flask import Flask

from app import create_app
from app.settings import Settings
from tests.system.service import Service, token
from tests.web.raw_client import Answer, RawClient

TAKE_A_BODY = {"POST", "PUT", "PATCH", "DELETE"}
TOKENS = {
    "no token": b"",
    "garbage": b"Authorization: Bearer garbage\r\n",
    "another scheme": b"Authorization: Basic YWRhOnNlY3JldA==\r\n",
    "expired": b"Authorization: Bearer " + token(exp=1_000_000_000).encode() + b"\r\n",
    "refresh": b"Authorization: Bearer " + token(type="refresh").encode() + b"\r\n",
}
BODIES = {
    "length": b"Content-Length: 1000000\r\n",
    "chunks": b"Transfer-Encoding: chunked\r\n",
    "too large": b"Content-Length: 999999999999999999\r\n",
    "length and expect": b"Content-Length: 1000000\r\nExpect: 100-continue\r\n",
    "chunks and expect": b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
}


@pytest.fixture
def application(service: Service) -> Iterator[Flask]:
    """The application that the service runs, to look at."""
    application = create_app(Settings.from_env(service.environment))
    with closing(application.extensions["detections"]):
        yield application


def routes(application: Flask) -> list[tuple[str, str]]:
    """Method and path of every route that may come with a body."""
    return [
        (method, re.sub("<[^>]*>", "0123456789abcdef", rule.rule))
        for rule in application.url_map.iter_rules()
        for method in sorted(TAKE_A_BODY & (rule.methods or set()))
    ]


def ask(service: Service, method: str, path: str, headers: bytes) -> Answer:
    """The one answer to a head without its body, and nothing before or behind it."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with RawClient(socket.create_connection((host, int(port)), timeout=10)) as client:
        client.send(
            f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: image/jpeg\r\n".encode() + headers + b"\r\n"
        )
        answer = client.answer()
        assert client.everything() == b"", (method, path)
    return answer


def test_a_body_that_never_comes_is_not_waited_for(service: Service, application: Flask) -> None:
    found = routes(application)
    assert {("POST", "/detect"), ("POST", "/media"), ("POST", "/detect/0123456789abcdef")} <= set(found)
    for method, path in found:
        for bearer in TOKENS.values():
            for body in BODIES.values():
                answer = ask(service, method, path, bearer + body)
                assert answer.status == 401, (method, path, answer)
                assert b"connection: close" in answer.head, (method, path, answer)
                assert answer.json()["type"].endswith("unauthorized")
    assert service.leftovers() == []


@pytest.mark.long
def test_no_method_of_any_route_waits_for_a_body_before_it_answers(service: Service, application: Flask) -> None:
    for rule in application.url_map.iter_rules():
        path = re.sub("<[^>]*>", "0123456789abcdef", rule.rule)
        for method in ("GET", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
            for body in BODIES.values():
                answer = ask(service, method, path, body)
                assert answer.status != 100
                assert answer.status < 500
