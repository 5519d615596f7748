"""The running service's responses match the OpenAPI document."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from app.web.problems import TYPE_BASE
from tests.api_description.description import API, CONTENT, described_parameters, described_response, operations
from tests.paths import PHOTOS
from tests.system.service import Service, token

pytestmark = pytest.mark.slow

ASTRONAUT, CHELSEA = PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"
ADMINISTRATOR = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}
NOBODY = "http://127.0.0.1:1"  # nothing listens there, so messages wait with an error


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """One service for all tests here; its annotations service never responds."""
    folder = tmp_path_factory.mktemp("described")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", NOBODY, MAX_UPLOAD_BYTES="1000000")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture(scope="module")
def astronaut(service: Service) -> dict[str, Any]:
    """The media item of the one photo."""
    answer = service.upload("/detect", ASTRONAUT)
    assert answer.status_code == 201, answer.text
    conforms(answer, "/detect")
    media: dict[str, Any] = answer.json()["media"]
    return media


def conforms(answer: requests.Response, path: str) -> Any:
    """Check a response against the description of its method, path and status; return its JSON, if any."""
    method = (answer.request.method or "").lower()
    described = described_response(method, path, answer.status_code)
    for name, header in described["headers"].items():
        rule = API.resolved(header)
        value = answer.headers.get(name)
        assert value is not None or not rule.get("required"), f"{name} is missing"
        assert value is None or API.violations(rule["schema"], value, name) == []
    content = described.get("content")
    if content is None:
        assert answer.content == b""
        return None
    kind = answer.headers["Content-Type"].partition(";")[0]
    [entry] = [entry for pattern, entry in content.items() if kind == pattern or kind.startswith(pattern.rstrip("*"))]
    if not kind.endswith("json"):
        return None
    assert API.violations(entry["schema"], answer.json()) == [], answer.text
    return answer.json()


def refused(answer: requests.Response, status: int, name: str, path: str) -> Any:
    """Check that the response is that problem, as described."""
    assert answer.status_code == status, answer.text
    problem = conforms(answer, path)
    assert problem["status"] == status
    assert problem["type"] == TYPE_BASE + name
    return problem


def test_answers_of_a_detection_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    again = service.upload("/detect", ASTRONAUT)
    assert again.status_code == 200
    assert conforms(again, "/detect")["duplicate"] is True
    raw = service.request(
        "POST", "/detect?name=a.jpg", data=ASTRONAUT.read_bytes(), headers={"Content-Type": "image/*"}
    )
    assert raw.status_code == 200
    assert conforms(raw, "/detect")["duplicate"] is True
    in_memory = service.upload("/detect?persist=false", ASTRONAUT)
    assert conforms(in_memory, "/detect")["media"]["id"] == f"V{astronaut['id']}"
    queued = service.upload("/detect", CHELSEA, headers={"Prefer": "respond-async"})
    assert queued.status_code == 202
    assert queued.headers["Preference-Applied"] == "respond-async"
    conforms(queued, "/detect")
    new_run = service.request("POST", f"/detect/{astronaut['id']}")
    assert new_run.status_code == 200
    assert conforms(new_run, "/detect/{media_id}")["media"]["run"]["id"] != astronaut["run"]["id"]


def test_refusals_of_a_detection_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    undecodable = service.upload("/detect", b"\xff\xd8\xff no picture", "no.jpg")
    assert refused(undecodable, 422, "undecodable", "/detect")["mediaId"]
    refused(service.upload("/detect", b"text", "notes.txt"), 415, "unsupported-media", "/detect")
    refused(service.upload("/detect", bytes(2_000_000), "large.jpg"), 413, "too-large", "/detect")
    refused(service.request("POST", "/detect"), 400, "malformed-upload", "/detect")
    other = bytearray(ASTRONAUT.read_bytes())
    other[len(other) // 4] ^= 0xFF  # outside the sample, so the id is the same
    refused(service.upload("/detect", bytes(other), "other.jpg"), 409, "media-id-collision", "/detect")
    refused(service.upload("/media", bytes(other), "other.jpg"), 409, "media-id-collision", "/media")
    unknown = service.request("POST", "/detect/0123456789abcdef")
    refused(unknown, 503, "unavailable", "/detect/{media_id}")  # only the annotations service could know it
    refused(service.request("POST", "/detect/none"), 404, "not-found", "/detect/{media_id}")


def test_a_second_run_meanwhile_is_refused_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    """One item's run occupies the only detector while two are requested for another."""
    later = {"Prefer": "respond-async"}
    for _ in range(20):
        service.upload("/detect?rerun=true", CHELSEA, headers=later)
        queued = service.request("POST", f"/detect/{astronaut['id']}", headers=later)
        second = service.request("POST", f"/detect/{astronaut['id']}", headers=later)
        if second.status_code == 409:
            assert queued.status_code in (202, 409)
            refused(second, 409, "already-processing", "/detect/{media_id}")
            break
    else:
        pytest.fail("no second run was ever refused")


def test_answers_about_media_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    stored = service.upload("/media", PHOTOS.joinpath("chelsea.jpg").read_bytes() + b" ", "longer.jpg")
    assert stored.status_code == 201
    conforms(stored, "/media")
    known = service.upload("/media", ASTRONAUT)
    assert known.status_code == 200
    conforms(known, "/media")
    page = conforms(service.request("GET", "/media?limit=1&type=Image"), "/media")
    assert len(page["items"]) == 1
    rest = conforms(service.request("GET", "/media", params={"cursor": page["nextCursor"]}), "/media")
    assert page["items"][0] not in rest["items"]
    assert rest["nextCursor"] is None
    media = f"/media/{astronaut['id']}"
    assert conforms(service.request("GET", media), "/media/{media_id}")["id"] == astronaut["id"]
    result = service.request("GET", f"{media}/detections")
    found = conforms(result, "/media/{media_id}/detections")["annotations"]
    assert [detected["label"] for detected in found[0]["detections"]] == ["person"]
    of_run = service.request("GET", f"{media}/detections", params={"run": result.json()["run"]["id"]})
    assert conforms(of_run, "/media/{media_id}/detections")["annotations"] == found
    for path in ("/media/{media_id}", "/media/{media_id}/detections", "/media/{media_id}/events"):
        refused(service.request("GET", path.replace("{media_id}", "0" * 16)), 404, "not-found", path)


def test_answers_with_content_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    path, url = "/media/{media_id}/content", f"/media/{astronaut['id']}/content"

    def get(**headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.request("GET", url, headers=named)

    whole, part = get(), get(Range="bytes=0-9")
    assert whole.status_code == 200
    assert part.status_code == 206
    conforms(whole, path)
    conforms(part, path)
    assert whole.content == ASTRONAUT.read_bytes()
    assert part.content == whole.content[:10]
    assert part.headers["Content-Range"] == f"bytes 0-9/{len(whole.content)}"
    seen = get(If_None_Match=whole.headers["ETag"])
    assert seen.status_code == 304
    conforms(seen, path)
    refused(get(Range="bytes=999999-"), 416, "requested-range-not-satisfiable", path)
    refused(get(If_Match='"another"'), 412, "precondition-failed", path)
    refused(service.request("GET", "/media/none/content"), 404, "not-found", path)


def test_answers_to_a_page_that_shows_media_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    assert conforms(service.request("GET", "/me"), "/me") == {"userId": "ada", "admin": False}
    assert conforms(service.request("GET", "/me", headers=ADMINISTRATOR), "/me") == {"userId": "root", "admin": True}
    made = service.request("POST", f"/media/{astronaut['id']}/link")
    assert made.status_code == 201
    url = service.url + conforms(made, "/media/{media_id}/link")["url"]
    path = "/media/{media_id}/content"
    for headers, status in (({}, 200), ({"Range": "bytes=0-9"}, 206)):
        answer = requests.get(url, headers=headers, timeout=30)
        assert answer.status_code == status
        conforms(answer, path)
    refused(requests.get(url + "x", timeout=30), 401, "unauthorized", path)
    refused(service.request("POST", "/media/none/link"), 404, "not-found", "/media/{media_id}/link")


def test_answers_about_the_outbox_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    def ask(method: str, path: str, **options: Any) -> requests.Response:
        return service.request(method, path, headers=ADMINISTRATOR, **options)

    history, skip, unknown = "/outbox/media/{media_id}", "/outbox/media/{media_id}/skip", "/outbox/media/none"
    assert conforms(ask("GET", "/outbox"), "/outbox")["pending"] > 0
    assert len(conforms(ask("GET", "/outbox/throughput"), "/outbox/throughput")["minutes"]) == 60
    page = conforms(ask("GET", "/outbox/messages?limit=1"), "/outbox/messages")
    assert [len(page["items"]), page["nextCursor"] is None] == [1, False]
    known = f"/outbox/media/{astronaut['id']}"
    assert conforms(ask("GET", known), history)["messages"][0]["kind"] == "create"
    assert conforms(ask("POST", "/outbox/retry", json={"all": True}), "/outbox/retry") == {"retried": 0}
    refused(ask("POST", "/outbox/retry", json={}), 400, "malformed-upload", "/outbox/retry")
    refused(ask("POST", "/outbox/retry", json={"reason": "x" * 70_000}), 413, "too-large", "/outbox/retry")
    refused(ask("POST", f"{known}/skip"), 409, "not-parked", skip)
    refused(ask("GET", unknown), 404, "not-found", history)
    refused(ask("POST", f"{unknown}/skip"), 404, "not-found", skip)
    resend = "/outbox/media/{media_id}/resend"
    refused(ask("POST", f"{unknown}/resend"), 404, "not-found", resend)
    refused(ask("POST", f"{known}/resend"), 503, "unavailable", resend)
    for path, method, operation in operations():
        if "outbox" in operation["tags"]:
            refused(service.request(method, path.replace("{media_id}", "0" * 16)), 403, "forbidden", path)


def test_events_are_as_described(service: Service, astronaut: dict[str, Any]) -> None:
    path = "/media/{media_id}/events"
    answer = service.request("GET", f"/media/{astronaut['id']}/events")
    conforms(answer, path)
    kinds = described_response("get", path, 200)["content"]["text/event-stream"]["x-events"]
    events = re.findall(r"id: \S+\nevent: (\w+)\ndata: (.*)\n\n", answer.text)
    assert {name for name, _ in events} == kinds.keys()
    for name, data in events:
        assert API.violations(kinds[name], json.loads(data)) == []


def test_answers_for_supervisors_and_tools_are_as_described(service: Service) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        answer = requests.get(service.url + path, timeout=30)
        assert answer.status_code == 200
        conforms(answer, path)
    assert requests.get(f"{service.url}/openapi.json", timeout=30).json() == CONTENT


def test_every_call_wants_a_token_where_the_document_says_so(service: Service) -> None:
    for path, method, operation in operations():
        url = service.url + path.replace("{media_id}", "0" * 16)
        answer = requests.request(method, url, timeout=30)
        if operation.get("security", CONTENT["security"]):
            refused(answer, 401, "unauthorized", path)
        else:
            assert answer.status_code == 200, path


def test_every_described_parameter_is_read_and_its_bounds_are_kept(service: Service) -> None:
    checked = 0
    for path, method, operation in operations():
        for parameter in described_parameters(path, operation):
            schema, name = API.resolved(parameter["schema"]), parameter["name"]
            if parameter["in"] != "query" or name == "name":
                continue
            allowed = [schema[bound] for bound in ("minimum", "maximum") if bound in schema] + schema.get("enum", [])
            beyond = ["nonsense", *(schema[bound] for bound in ("exclusiveMinimum",) if bound in schema)]
            beyond += [schema["maximum"] + 1] if "maximum" in schema else []
            beyond += [schema["minimum"] - 1] if "minimum" in schema else []
            for value in (*allowed, *beyond):
                url = path.replace("{media_id}", "0" * 16)
                answer = service.request(method, url, params={name: value}, headers=ADMINISTRATOR)
                said = answer.json().get("detail", "") if answer.status_code == 400 else ""
                assert said.startswith(name) == (value in beyond), f"{method} {path} {name}={value}"
                checked += 1
    assert checked > 20


def test_a_request_id_is_taken_over_or_made_as_described(service: Service) -> None:
    for given in ("trace-1", "a" * 64):
        answer = service.request("GET", "/media/none", headers={"X-Request-Id": given})
        assert refused(answer, 404, "not-found", "/media/{media_id}")["requestId"] == given
        assert answer.headers["X-Request-Id"] == given
    answer = service.request("GET", "/media/none", headers={"X-Request-Id": "a" * 65})
    assert refused(answer, 404, "not-found", "/media/{media_id}")["requestId"] != "a" * 65
