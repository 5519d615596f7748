"""Whatever bytes arrive, the service answers as it should, lives on, and keeps its memory.

HOSTILE_REQUESTS sets how many are sent; 10000 is the long form, for each database.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings

from tests.long import sqlite_first
from tests.paths import PHOTOS
from tests.system import hostile
from tests.system.hostile import KNOWN, Answer, Request, authorized, request_of
from tests.system.service import Service

ASTRONAUT = PHOTOS / "astronaut.jpg"
EXAMPLES = int(os.environ.get("HOSTILE_REQUESTS", "100"))
MAX_GROWTH = 64 << 20
OF_GUNICORN = (400, 414, 417, 431, 501)  # 501: a transfer coding that it does not know
OF_OURS = (503, 507)


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[Service]:
    service = Service(tmp_path, database_url, None, UPLOAD_IDLE_TIMEOUT_SECONDS="2", SYNC_WAIT_SECONDS="5")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def known(service: Service) -> bytes:
    """The id of a media with a finished run."""
    return service.detected(ASTRONAUT).encode()


def worker(service: Service) -> Any:
    assert service.process is not None
    [worker] = psutil.Process(service.process.pid).children()
    return worker


def check(answer: Answer) -> None:
    """No refusal but in the form that is promised, and no failure."""
    if not answer.is_from_the_application:
        assert answer.status in (0, *OF_GUNICORN), answer
    else:
        assert answer.status < 500 or answer.status in OF_OURS, answer
    if answer.status >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json", answer
        if answer.body:  # HEAD has none
            problem = json.loads(answer.body)
            assert problem.keys() - {"mediaId", "mediaUrl"} == {"type", "title", "status", "detail", "requestId"}
            assert problem["status"] == answer.status
            assert problem["requestId"] == answer.headers["X-Request-Id"]


def check_log(service: Service) -> None:
    """Nothing went wrong unseen by the client either."""
    log = service.log.read_text(errors="replace").splitlines()
    signs = ("unexpected_error", "Traceback", '"level": "error"')
    assert [line for line in log if any(sign in line for sign in signs)] == []


@sqlite_first
@pytest.mark.timeout(120 + EXAMPLES // 10)
def test_hostile_requests_break_nothing(service: Service, known: bytes) -> None:
    before = worker(service)
    memory = before.memory_info().rss
    answered = []

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(hostile.requests())
    def bombard(request: Request) -> None:
        answer = hostile.send(service.url, request.content.replace(KNOWN, known))
        answered.append(answer)
        check(answer)

    bombard()
    assert service.request("GET", "/healthz").status_code == 200
    assert worker(service) == before
    assert before.memory_info().rss - memory < MAX_GROWTH
    assert sum(answer.is_from_the_application for answer in answered) > len(answered) / 3
    check_log(service)


def test_requests_that_once_broke_something_are_answered(service: Service, known: bytes) -> None:
    content = b"/media/" + known + b"/content"
    for method, target, header, status in (
        *((b"OPTIONS", path, (b"Accept", b"*/*"), 200) for path in (b"/media", b"/detect", content)),
        *((b"GET", content, (b"If-Modified-Since", date), 200) for date in hostile.IMPOSSIBLE_DATES),
        *((b"GET", b"/openapi.json", (b"If-Modified-Since", date), 200) for date in hostile.IMPOSSIBLE_DATES),
        (b"GET", content, (b"If-Match", b'"other"'), 412),
        (b"GET", b"/healthz", (b"SCRIPT_NAME", b"/elsewhere"), 200),
        (b"GET", b"/healthz", (b"PATH_INFO", b"/nowhere"), 200),
        (b"GET", b"/media/%00", (b"Accept", b"*/*"), 404),
        (b"POST", b"/detect/%00", (b"Accept", b"*/*"), 404),
        (b"GET", b"/media?cursor=0x1p0_%00", (b"Accept", b"*/*"), 400),
        (b"GET", b"/media?cursor=media_0x1.0p%2B999_0000000000000000_0", (b"Accept", b"*/*"), 400),
        (b"GET", b"/media?cursor=media_0x1.0p%2B1024_0000000000000000_0", (b"Accept", b"*/*"), 400),
    ):
        answer = hostile.send(service.url, request_of(method, target, [(b"Host", b"localhost"), authorized(), header]))
        assert answer.status == status, (method, target, header, answer)
        check(answer)
    check_log(service)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_two_content_lengths_are_refused_and_no_body_is_taken_for_a_request(service: Service) -> None:
    smuggled = request_of(b"GET", b"/media", [(b"Host", b"localhost"), authorized()])
    for lengths in ((b"0", b"%d" % len(smuggled)), (b"%d" % len(smuggled), b"0"), (b"5", b"5")):
        headers = [(b"Host", b"localhost"), authorized(), *((b"Content-Length", length) for length in lengths)]
        answer = hostile.send(service.url, request_of(b"POST", b"/media", headers, smuggled))
        assert answer.status == 400
        assert not answer.is_from_the_application
    log = service.log.read_text(errors="replace")
    assert '"path": "/media"' not in log
