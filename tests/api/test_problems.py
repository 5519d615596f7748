"""Every error response is a problem document with the documented status and type, and nothing more."""

import io
import json
import re
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import TestResponse

from app import errors
from app.media.hashing import media_id_of_bytes
from app.web import problems
from tests.api.conftest import RUNS_OUT, Api, MakeApi, Untouched, picture
from tests.reference.service import ReferenceService
from tests.system.service import SECRET

MEMBERS = {"type", "title", "status", "detail", "requestId"}


def assert_problem(answer: TestResponse, status: int, name: str, *more: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    document: dict[str, object] = json.loads(answer.data)
    assert document.keys() == MEMBERS | set(more)
    assert str(document["type"]).endswith(name)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["requestId"] == answer.headers["X-Request-Id"]
    return document


def alike(seed: int) -> tuple[bytes, bytes]:
    """Two files with one id."""
    original = picture(seed, (200, 200))
    altered = bytearray(original)
    altered[len(original) // 4] ^= 0xFF
    assert media_id_of_bytes(original) == media_id_of_bytes(bytes(altered))
    return original, bytes(altered)


def collision(api: Api) -> TestResponse:
    original, altered = alike(1)
    api.upload("/media", original)
    return api.upload("/media", altered)


class CutOff(io.RawIOBase):
    """A body whose client disconnects after a few bytes."""

    def readable(self) -> bool:
        return True

    def read(self, _size: int = -1) -> bytes:
        raise ConnectionResetError("gone")


def cut_off(api: Api) -> TestResponse:
    environ = {"wsgi.input": CutOff(), "CONTENT_LENGTH": "5000"}
    return api.request("POST", "/media?name=a.jpg", content_type="image/jpeg", environ_overrides=environ)


def cut_short(api: Api) -> TestResponse:
    environ = {"wsgi.input": io.BytesIO(picture(2)), "CONTENT_LENGTH": str(len(picture(2)) + 1)}
    return api.request("POST", "/media?name=a.jpg", content_type="image/jpeg", environ_overrides=environ)


REFUSALS: dict[str, tuple[Callable[[Api], TestResponse], int, str]] = {
    "no file": (lambda api: api.request("POST", "/media", data={"other": "field"}), 400, "malformed-upload"),
    "no upload": (lambda api: api.request("POST", "/media", json={}), 400, "malformed-upload"),
    "no name": (lambda api: api.send_raw("/media", picture(3)), 400, "malformed-upload"),
    "no content": (lambda api: api.send_raw("/media?name=a.jpg", b""), 400, "malformed-upload"),
    "cut off": (cut_off, 400, "malformed-upload"),
    "cut short": (cut_short, 400, "malformed-upload"),
    "bad parameter": (lambda api: api.upload("/detect?rerun=maybe", picture(3)), 400, "malformed-upload"),
    "no token": (lambda api: api.get("/media", headers={"Authorization": ""}), 401, "unauthorized"),
    "unknown": (lambda api: api.get("/media/0123456789abcdef"), 404, "not-found"),
    "extension not allowed": (lambda api: api.upload("/media", picture(4), "script.svg"), 415, "unsupported-media"),
    "another kind of file": (lambda api: api.upload("/media", picture(4), "a.png"), 415, "unsupported-media"),
    "no extension": (lambda api: api.upload("/media", picture(4), "noextension"), 415, "unsupported-media"),
}


@pytest.mark.parametrize("cause", REFUSALS)
def test_a_refusal_has_the_status_and_the_type_of_the_contract(api: Api, cause: str) -> None:
    provoke, status, name = REFUSALS[cause]
    assert_problem(provoke(api), status, name)
    assert api.leftovers() == []
    assert api.services.slots.taken == 0


def test_an_undecodable_media_is_named_in_its_problem(api: Api) -> None:
    document = assert_problem(api.upload("/detect", RUNS_OUT), 422, "undecodable", "mediaId", "mediaUrl")
    assert document["mediaId"] == media_id_of_bytes(RUNS_OUT)


def test_a_collision_names_the_item_that_has_the_id_and_leads_to_it(api: Api) -> None:
    document = assert_problem(collision(api), 409, "media-id-collision", "mediaId", "mediaUrl")
    stored = api.get(str(document["mediaUrl"])).json
    assert stored is not None
    assert stored["id"] == document["mediaId"] == media_id_of_bytes(picture(1, (200, 200)))
    assert all(str(said) in str(document["detail"]) for said in (stored["id"], stored["name"], stored["sizeBytes"]))


def test_two_honest_pictures_that_share_an_id_are_both_stored_once_one_is_compressed(api: Api) -> None:
    sky = Image.new("RGB", (320, 240))
    drone = sky.copy()
    drone.paste("white", (150, 60, 170, 70))
    plain, seen, compressed = bitmap(sky), bitmap(drone), bitmap(drone, "PNG")
    assert plain != seen
    assert api.upload("/media", plain, "sky.bmp").status_code == 201
    assert_problem(api.upload("/media", seen, "drone.bmp"), 409, "media-id-collision", "mediaId", "mediaUrl")
    assert api.upload("/media", compressed, "drone.png").status_code == 201


def bitmap(image: Image.Image, kind: str = "BMP") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_a_collision_with_a_file_that_no_record_has_leads_nowhere(api: Api) -> None:
    original, altered = alike(2)
    stray = api.images / f"{media_id_of_bytes(original)}.jpg"
    stray.write_bytes(original)
    document = assert_problem(api.upload("/media", altered), 409, "media-id-collision")
    assert media_id_of_bytes(original) in str(document["detail"])
    assert stray.read_bytes() == original
    stray.unlink()


def test_a_picture_with_too_many_pixels_is_too_large(api: Api) -> None:
    # A header that claims 60000 x 60000 pixels, with almost no data.
    head = bytearray(picture(5, (16, 16), "PNG"))
    head[16:24] = (60_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    document = assert_problem(api.upload("/detect", bytes(head), "a.png"), 413, "too-large", "mediaId", "mediaUrl")
    media = api.get(f"/media/{document['mediaId']}").json
    assert media is not None
    assert media["mediaStatus"] == 6


def test_a_file_beyond_the_limit_is_refused_unread_whatever_room_there_is(make_api: MakeApi) -> None:
    api = make_api(MAX_UPLOAD_BYTES="1000")
    for declared in (1001, 1 << 62):
        body = Untouched(picture(6))
        environ = body.environ | {"CONTENT_LENGTH": str(declared)}
        answer = api.request("POST", "/media?name=a.jpg", content_type="image/jpeg", environ_overrides=environ)
        assert_problem(answer, 413, "too-large")
        assert not body.was_read
    assert_problem(api.upload("/media", bytes(1001)), 413, "too-large")
    assert api.leftovers() == []


def test_a_file_that_does_not_fit_the_disk_is_refused_unread(make_api: MakeApi) -> None:
    api = make_api(MAX_UPLOAD_BYTES=str(1 << 62))
    body = Untouched(picture(7))
    environ = body.environ | {"CONTENT_LENGTH": str(1 << 60)}
    answer = api.request("POST", "/media?name=a.jpg", content_type="image/jpeg", environ_overrides=environ)
    assert_problem(answer, 507, "storage-full")
    assert not body.was_read


def test_a_database_that_stays_busy_is_unavailable(make_api: MakeApi) -> None:
    api = make_api()
    api.services.database.busy_seconds = 0.1
    with api.services.database.write_transaction():
        answer = api.upload("/media", picture(8))
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert api.stored() == set()
    assert api.leftovers() == []
    assert api.upload("/media", picture(8)).status_code == 201


def test_the_annotations_service_out_of_reach_is_unavailable_where_only_it_could_know(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    annotations.stop()
    answer = make_api(annotations).request("POST", "/detect/0123456789abcdef")
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_every_error_of_ours_has_its_answer() -> None:
    unanswered = {errors.SettingsError, errors.IllegalTransition}  # errors of the installation or of the code: 500
    ours = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DetectionsError)
    }
    answered = {kind for kind in ours if set(kind.__mro__) & set(problems.PROBLEMS)}
    assert ours - {errors.DetectionsError} == answered | unanswered


@pytest.mark.parametrize("path", ["/index.html", "/nothing", "/media/a/b/c", "/detect/", "/.env", "/static/x"])
def test_an_unknown_address_is_not_found(api: Api, path: str) -> None:
    assert repr(path) in str(assert_problem(api.get(path), 404, "not-found")["detail"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/detect", {"OPTIONS", "POST"}),
        ("DELETE", "/media", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PUT", "/media/0123456789abcdef", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_answered_with_the_right_ones(api: Api, method: str, path: str, allowed: set[str]) -> None:
    answer = api.request(method, path)
    detail = str(assert_problem(answer, 405, "method-not-allowed")["detail"])
    assert all(said in detail for said in (method, path, *allowed))
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("rerun=maybe", "rerun"),
        ("persist=no", "persist"),
        ("confidence=0", "confidence"),
        ("confidence=0.0099", "confidence"),
        ("confidence=1e-300", "confidence"),
        ("confidence=1.01", "confidence"),
        ("confidence=nan", "confidence"),
        ("confidence=much", "confidence"),
        ("frameInterval=0", "frameInterval"),
        ("frameInterval=-1", "frameInterval"),
        ("frameInterval=inf", "frameInterval"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name_before_the_body_is_read(api: Api, query: str, named: str) -> None:
    body = Untouched(picture(9))
    path = f"/detect?name=a.jpg&{query}"
    answer = api.request("POST", path, content_type="image/jpeg", environ_overrides=body.environ)
    assert named in str(assert_problem(answer, 400, "malformed-upload")["detail"])
    assert not body.was_read


def test_a_body_of_another_type_is_refused_by_that_type(api: Api) -> None:
    answer = api.request("POST", "/detect?name=a.jpg", data=b"hello", content_type="text/plain")
    assert "not 'text/plain'" in str(assert_problem(answer, 400, "malformed-upload")["detail"])


def test_a_request_id_is_taken_over(api: Api) -> None:
    for given_id in ("a", "Trace-1.2_3", "x" * 64):
        answer = api.get("/media/0123456789abcdef", headers={"X-Request-Id": given_id})
        assert answer.headers["X-Request-Id"] == given_id
        assert_problem(answer, 404, "not-found")
    assert api.get("/healthz", headers={"X-Request-Id": "probe"}).headers["X-Request-Id"] == "probe"


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=100))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_id_is_well_formed_whatever_was_given(api: Api, text: str) -> None:
    returned = api.get("/healthz", headers={"X-Request-Id": text}).headers["X-Request-Id"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", returned)
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        assert returned == text


def test_a_trace_that_the_client_is_in_gives_the_request_its_id(api: Api) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    traced = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert api.get("/healthz", headers=traced).headers["X-Request-Id"] == trace
    assert api.get("/healthz", headers=traced | {"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


def test_two_requests_have_two_ids(api: Api) -> None:
    assert api.get("/healthz").headers["X-Request-Id"] != api.get("/healthz").headers["X-Request-Id"]


def test_a_request_id_is_logged_and_passed_on(
    make_api: MakeApi, annotations: ReferenceService, capfd: pytest.CaptureFixture[str]
) -> None:
    api = make_api(annotations, LOG_LEVEL="debug")
    api.upload("/media", picture(10), headers={"X-Request-Id": "from-the-client"})
    [arrived] = annotations.wait_for(lambda entries: any(entry["applied"] for entry in entries))
    assert arrived["requestId"] == "from-the-client"
    api.services.stop()
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    events = {line["event"] for line in logged if line.get("request_id") == "from-the-client"}
    assert {"request", "delivery"} <= events


def test_nothing_secret_is_logged(make_api: MakeApi, capfd: pytest.CaptureFixture[str]) -> None:
    api = make_api()
    api.upload("/media", picture(11))
    api.get("/media", headers={"Authorization": "Bearer wrong.token.altogether"})
    logged = capfd.readouterr().err
    assert '"event": "request"' in logged
    assert SECRET not in logged
    assert "eyJ" not in logged
    assert "wrong.token" not in logged


def test_an_unforeseen_fault_shows_nothing_of_the_inside(
    make_api: MakeApi, sqlite_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    api = make_api(DATABASE_URL=sqlite_url)
    database = Path(sqlite_url.removeprefix("sqlite:///"))
    api.services.database.close()
    with sqlite3.connect(database) as other:
        other.execute("DROP TABLE detection_run")
    other.close()
    answer = api.get("/media")
    document = assert_problem(answer, 500, "internal")
    for inside in ("sqlite", "SELECT", "detection_run", "Traceback", "sqlalchemy", str(database)):
        assert inside not in answer.text
    logged = capfd.readouterr().err
    assert "no such table" in logged
    assert str(document["requestId"]) in logged
