"""Which tokens are accepted, and that no body is read before one was."""

import base64
import hmac
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import RSAAlgorithm
from werkzeug.test import TestResponse

from app.annotations.tokens import MintedTokens
from app.services import token_source
from app.web.auth.authentication import LEEWAY_SECONDS
from tests.api.conftest import Api, MakeApi, Untouched, picture
from tests.eventually import eventually
from tests.system.service import SECRET, token

OTHER_SECRET = "another secret, which is long enough to be one"
ROUTES_WITH_A_BODY = ("/detect", "/detect?persist=false", "/detect/0123456789abcdef", "/media")
ROUTES = ("/media", "/media/0123456789abcdef", "/media/0123456789abcdef/content", "/media/0123456789abcdef/events")


def soon() -> int:
    return int(time.time()) + 600


def signed(key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"exp": soon(), "sub": "ada"} | claims, key, algorithm)


def without(*names: str) -> str:
    claims = {"exp": soon(), "sub": "ada"}
    return jwt.encode({name: value for name, value in claims.items() if name not in names}, SECRET)


def part(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'exp': soon(), 'sub': 'ada'})}."


def signed_by_hand(algorithm: str, key: str) -> str:
    """Return a token as an attacker makes it, with keys and algorithms that a library would refuse."""
    text = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'exp': soon(), 'sub': 'eve'})}"
    digest = hmac.digest(key.encode(), text.encode(), algorithm.replace("HS", "sha"))
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def signed_with_header(payload: bytes | None = None, **header: Any) -> str:
    """Return a token signed with the service's key, with extra header fields or an unusual payload."""
    head = part({"alg": "HS256", "typ": "JWT"} | header)
    body = part({"exp": soon(), "sub": "ada"}) if payload is None else base64.urlsafe_b64encode(payload).decode()
    text = f"{head}.{body.rstrip('=')}"
    digest = hmac.digest(SECRET.encode(), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def altered() -> str:
    head, _, signature = signed().split(".")
    return f"{head}.{part({'exp': soon(), 'sub': 'eve'})}.{signature}"


DEEP_CLAIM = b'{"sub": ' + b"[" * 5000 + b"]" * 5000 + b"}"
LONG_EXP = b'{"sub": "ada", "exp": ' + b"9" * 5000 + b"}"

BAD: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "only the scheme": lambda: "Bearer",
    "only the scheme and a space": lambda: "Bearer ",
    "basic": lambda: "Basic " + base64.b64encode(b"ada:secret").decode(),
    "scheme missing": signed,
    "scheme misspelled": lambda: f"Bearer: {signed()}",
    "three words": lambda: f"Bearer {signed()} {signed()}",
    "two headers": lambda: f"Bearer {signed()},Bearer {signed()}",
    "two headers, one of them basic": lambda: f"Basic YTpi, Bearer {signed()}",
    "commas": lambda: ", ,",
    "garbage": lambda: "Bearer garbage",
    "dots": lambda: "Bearer ..",
    "not base64": lambda: "Bearer %%%.%%%.%%%",
    "not ASCII": lambda: "Bearer ä.ö.ü",
    "lists instead of objects": lambda: f"Bearer {part([])}.{part([])}.{part([])}",
    "deeply nested": lambda: f"Bearer {base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.e30",
    "100 kB": lambda: f"Bearer {signed(more='x' * 100_000)}",
    "100 kB of spaces": lambda: "Bearer " + " " * 100_000 + signed(),
    "alg none": lambda: f"Bearer {unsigned('none')}",
    "alg None": lambda: f"Bearer {unsigned('None')}",
    "alg of a number": lambda: f"Bearer {part({'alg': 7})}.{part({'exp': soon(), 'sub': 'ada'})}.e30",
    "no signature": lambda: f"Bearer {unsigned('HS256')}",
    "another algorithm": lambda: f"Bearer {signed_by_hand('HS512', SECRET)}",
    "another key": lambda: f"Bearer {signed(OTHER_SECRET)}",
    "altered": lambda: f"Bearer {altered()}",
    "cut off": lambda: f"Bearer {signed()[:-8]}",
    "no exp": lambda: f"Bearer {without('exp')}",
    "exp of null": lambda: f"Bearer {signed(exp=None)}",
    "exp of a text": lambda: f"Bearer {signed(exp='tomorrow')}",
    "exp beyond all numbers": lambda: f"Bearer {signed(exp=float('inf'))}",
    "expired": lambda: f"Bearer {signed(exp=int(time.time()) - 120)}",
    "not valid yet": lambda: f"Bearer {signed(nbf=soon())}",
    "issued in the future": lambda: f"Bearer {signed(iat=soon())}",
    "no identity": lambda: f"Bearer {without('sub')}",
    "identity of null": lambda: f"Bearer {signed(sub=None)}",
    "empty identity": lambda: f"Bearer {signed(sub='')}",
    "blank identity": lambda: f"Bearer {signed(sub=' ')}",
    "identity of a number": lambda: f"Bearer {signed(sub=7)}",
    "identity of true": lambda: f"Bearer {signed(sub=True)}",
    "identity of a list": lambda: f"Bearer {signed(sub=['ada'])}",
    "identity of an object": lambda: f"Bearer {signed(sub={'name': 'ada'})}",
    "identity with NUL": lambda: f"Bearer {signed(sub='a' + chr(0) + 'da')}",
    "identity with a line break": lambda: f"Bearer {signed(sub='ada' + chr(10) + 'eve')}",
    "identity with half a character": lambda: f"Bearer {signed(sub='a' + chr(0xD800))}",
    "identity too long": lambda: f"Bearer {signed(sub='a' * 256)}",
    "critical extension": lambda: f"Bearer {signed_with_header(crit=['b64'], b64=False)}",
    "unknown critical extension": lambda: f"Bearer {signed_with_header(crit=['x'], x=1)}",
    "crit of a text": lambda: f"Bearer {signed_with_header(crit='exp')}",
    "crit of nothing": lambda: f"Bearer {signed_with_header(crit=[])}",
    "kid of a number": lambda: f"Bearer {signed_with_header(kid=7)}",
    "payload deeply nested": lambda: f"Bearer {signed_with_header(b'[' * 5000)}",
    "claim deeply nested": lambda: f"Bearer {signed_with_header(DEEP_CLAIM)}",
    "payload of a list": lambda: f"Bearer {signed_with_header(b'[]')}",
    "payload of no JSON": lambda: f"Bearer {signed_with_header(b'{')}",
    "payload of half a character": lambda: f"Bearer {signed_with_header(bytes([0xFF, 0xFE]))}",
    "exp of 5000 digits": lambda: f"Bearer {signed_with_header(LONG_EXP)}",
    "refresh": lambda: f"Bearer {signed(type='refresh')}",
    "made here for the annotations service": lambda: f"Bearer {MintedTokens(SECRET).token_for('ada')}",
    "the same, and an administrator's": lambda: f"Bearer {signed(act={'sub': 'detections'}, roles=['admin'])}",
    "the same, asked for by somebody before": lambda: (
        f"Bearer {signed(act={'sub': 'detections', 'act': {'sub': 'portal'}})}"
    ),
}


def asked(api: Api, authorization: str, path: str = "/media", method: str = "GET", **options: Any) -> TestResponse:
    return api.request(method, path, headers={"Authorization": authorization}, **options)


def assert_refused(answer: TestResponse) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json is not None
    assert answer.json["type"].endswith("unauthorized")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused(api: Api, name: str) -> None:
    authorization = BAD[name]()
    answer = asked(api, authorization)
    assert_refused(answer)
    for secret in (SECRET, authorization.removeprefix("Bearer ")):
        assert len(secret) < 8 or secret not in answer.text


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"type": "access", "fresh": False, "jti": "b2f1"},
        {"sub": "a" * 255},
        {"sub": "Åsa Öberg"},
        {"aud": "whoever"},  # if no audience is configured
        {"iss": "somebody"},
        {"act": {"sub": "portal"}},  # another service acts for its user
        {"act": "detections"},  # not the claim of RFC 8693
    ],
)
def test_a_token_of_another_issuer_is_accepted(api: Api, claims: dict[str, Any]) -> None:
    assert asked(api, f"Bearer {signed(**claims)}").status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer "])
def test_the_scheme_may_be_written_in_any_case(api: Api, scheme: str) -> None:
    for _again in range(2):
        assert asked(api, f"{scheme} {signed()}").status_code == 200
    assert_refused(asked(api, f"{scheme} {signed(OTHER_SECRET)}"))
    assert_refused(asked(api, f"{scheme} {signed()} {signed()}"))


def test_a_token_that_expired_within_what_clocks_differ_is_accepted(api: Api) -> None:
    assert asked(api, f"Bearer {signed(exp=int(time.time()) - 5)}").status_code == 200


def test_a_token_that_was_accepted_is_refused_once_it_has_expired(api: Api) -> None:
    authorization = f"Bearer {signed(exp=int(time.time()) - LEEWAY_SECONDS + 2)}"
    assert asked(api, authorization).status_code == 200
    eventually(lambda: asked(api, authorization).status_code != 200, "the token to expire")
    assert_refused(asked(api, authorization))


def test_tokens_that_were_accepted_keep_speaking_for_their_own_bearers(api: Api) -> None:
    tokens = {user: f"Bearer {signed(sub=user)}" for user in ("ada", "grace")}
    for _again in range(2):
        for user, authorization in tokens.items():
            assert asked(api, authorization, "/me").json == {"userId": user, "admin": False}


@pytest.mark.parametrize("claims", [{"aud": "detections"}, {"aud": ["other", "detections"]}])
def test_a_token_for_this_audience_from_this_issuer_is_accepted(make_api: MakeApi, claims: dict[str, Any]) -> None:
    api = make_api(JWT_AUDIENCE="detections", JWT_ISSUER="https://login.example")
    assert asked(api, f"Bearer {signed(iss='https://login.example', **claims)}").status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "annotations", "iss": "https://login.example"},
        {"aud": "detections", "iss": "https://elsewhere.example"},
        {"aud": "detections"},
        {"iss": "https://login.example"},
        {"aud": [], "iss": "https://login.example"},
        {"aud": 7, "iss": "https://login.example"},
    ],
)
def test_a_token_for_another_audience_or_from_another_issuer_is_refused(
    make_api: MakeApi, claims: dict[str, Any]
) -> None:
    api = make_api(JWT_AUDIENCE="detections", JWT_ISSUER="https://login.example")
    assert_refused(asked(api, f"Bearer {signed(**claims)}"))


def test_the_identity_is_the_claim_that_the_settings_name(make_api: MakeApi) -> None:
    api = make_api(JWT_IDENTITY_CLAIM="user_name")
    stored = asked(
        api,
        f"Bearer {signed(sub=7, user_name='grace')}",
        "/media",
        "POST",
        data={"file": (io.BytesIO(picture(1)), "a.jpg")},
    )
    assert stored.status_code == 201
    assert stored.json is not None
    assert stored.json["media"]["userId"] == "grace"
    assert_refused(asked(api, f"Bearer {signed()}"))


@pytest.mark.parametrize("path", ROUTES_WITH_A_BODY)
def test_a_body_is_not_read_for_a_bad_token(api: Api, path: str) -> None:
    body = Untouched(picture(2))
    answer = asked(api, "Bearer garbage", path, "POST", content_type="image/jpeg", environ_overrides=body.environ)
    assert_refused(answer)
    assert not body.was_read


@pytest.mark.parametrize("path", ROUTES)
def test_every_read_needs_a_token(api: Api, path: str) -> None:
    assert_refused(asked(api, "", path))


def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_a_public_key_checks_what_its_owner_signed(make_api: MakeApi, tmp_path: Path) -> None:
    key, other = private_key(), private_key()
    (tmp_path / "public.pem").write_text(public_pem(key))
    api = make_api(JWT_SECRET_KEY="", JWT_PUBLIC_KEY_FILE=str(tmp_path / "public.pem"), JWT_ALGORITHM="RS256")
    assert asked(api, f"Bearer {signed(pem(key), 'RS256')}").status_code == 200
    assert_refused(asked(api, f"Bearer {signed(pem(other), 'RS256')}"))
    assert_refused(asked(api, f"Bearer {signed()}"))


def test_a_public_key_is_no_secret_to_sign_with(make_api: MakeApi, tmp_path: Path) -> None:
    public = public_pem(private_key())
    (tmp_path / "public.pem").write_text(public)
    api = make_api(JWT_SECRET_KEY="", JWT_PUBLIC_KEY_FILE=str(tmp_path / "public.pem"), JWT_ALGORITHM="RS256")
    assert_refused(asked(api, f"Bearer {signed_by_hand('HS256', public)}"))


def test_while_keys_change_the_one_before_is_accepted_and_signs_nothing(make_api: MakeApi) -> None:
    api = make_api(JWT_SECRET_KEY=OTHER_SECRET, JWT_SECRET_KEY_PREVIOUS=SECRET)
    for key in (SECRET, OTHER_SECRET):
        assert asked(api, f"Bearer {signed(key)}").status_code == 200
    assert_refused(asked(api, f"Bearer {signed('a third secret, which is long enough to be one')}"))
    assert_refused(asked(api, f"Bearer {signed(SECRET, exp=1)}"))
    assert_refused(asked(api, f"Bearer {MintedTokens(SECRET).token_for('ada')}"))
    minted = token_source(api.services.settings).token_for("ada")
    assert jwt.decode(minted, OTHER_SECRET, ["HS256"])["sub"] == "ada"


def test_any_of_several_public_keys_may_have_signed(make_api: MakeApi, tmp_path: Path) -> None:
    keys = [private_key() for _ in range(2)]
    (tmp_path / "public.pem").write_text("".join(map(public_pem, keys)))
    api = make_api(JWT_SECRET_KEY="", JWT_PUBLIC_KEY_FILE=str(tmp_path / "public.pem"), JWT_ALGORITHM="RS256")
    for key in keys:
        assert asked(api, f"Bearer {signed(pem(key), 'RS256')}").status_code == 200
    assert_refused(asked(api, f"Bearer {signed(pem(private_key()), 'RS256')}"))


def test_a_link_stays_good_while_keys_change(make_api: MakeApi) -> None:
    before = make_api()
    content = picture(1)
    media_id = before.upload("/media", content).json["media"]["id"]  # type: ignore[index]
    link = before.request("POST", f"/media/{media_id}/link").json
    assert link is not None
    rotated = {
        "JWT_SECRET_KEY": OTHER_SECRET,
        "DATABASE_URL": str(before.services.settings.database.url),
        "IMAGES_DIR": str(before.images),
        "VIDEOS_DIR": str(before.videos),
    }
    with closing(Api(rotated)) as after, after.app.test_client().get(link["url"]) as answer:
        assert answer.data == content


class KeyServer:
    """An issuer that publishes its keys. `answer` is its response, `asked` the number of requests."""

    def __init__(self) -> None:
        self.answer = b""
        self.redirects_to: str | None = None
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(302 if outer.redirects_to else 200)
                self.send_header("Location", outer.redirects_to or "")
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def publish(self, key_id: str, key: rsa.RSAPrivateKey) -> None:
        published = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": key_id, "use": "sig"}
        self.answer = json.dumps({"keys": [published]}).encode()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.close()


def of_issuer(make_api: MakeApi, issuer: KeyServer) -> Api:
    return make_api(JWT_SECRET_KEY="", JWT_JWKS_URL=issuer.url, JWT_ALGORITHM="RS256")


def named(key_id: str, key: rsa.RSAPrivateKey) -> str:
    return "Bearer " + jwt.encode({"exp": soon(), "sub": "ada"}, pem(key), "RS256", headers={"kid": key_id})


def test_published_keys_check_tokens_that_name_them(make_api: MakeApi, issuer: KeyServer) -> None:
    key = private_key()
    issuer.publish("first", key)
    api = of_issuer(make_api, issuer)
    assert asked(api, named("first", key)).status_code == 200
    assert asked(api, named("first", key)).status_code == 200
    assert issuer.asked == 1
    assert_refused(asked(api, named("second", key)))
    assert_refused(asked(api, named("first", private_key())))
    assert_refused(asked(api, f"Bearer {signed(pem(key), 'RS256')}"))


@pytest.mark.parametrize("answer", [b"<html>down for maintenance</html>", b'{"keys": []}', b"\xff\xfe"])
def test_an_issuer_that_publishes_no_keys_is_no_fault_of_the_client(
    make_api: MakeApi, issuer: KeyServer, answer: bytes
) -> None:
    issuer.answer = answer
    refused = asked(of_issuer(make_api, issuer), named("first", private_key()))
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0


def test_an_issuer_that_is_down_is_no_fault_of_the_client(make_api: MakeApi, issuer: KeyServer) -> None:
    api = of_issuer(make_api, issuer)
    issuer.close()
    body = Untouched(picture(3))
    authorization = named("first", private_key())
    answer = asked(api, authorization, "/media", "POST", content_type="image/jpeg", environ_overrides=body.environ)
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["type"].endswith("unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert not body.was_read
    assert api.app.test_client().get("/healthz").status_code == 200


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk", "x5c"])
def test_a_key_that_the_token_brings_is_not_used_nor_fetched(make_api: MakeApi, issuer: KeyServer, header: str) -> None:
    key = private_key()
    issuer.publish("first", private_key())
    api = of_issuer(make_api, issuer)
    with closing(KeyServer()) as attacker:
        attacker.publish("first", key)
        own = json.loads(attacker.answer)["keys"][0]
        brought = {"jku": attacker.url, "x5u": attacker.url, "jwk": own, "x5c": [public_pem(key)]}[header]
        for key_id in ("first", "evil"):
            headers = {"kid": key_id, header: brought}
            evil = jwt.encode({"exp": soon(), "sub": "eve"}, pem(key), "RS256", headers=headers)
            assert_refused(asked(api, f"Bearer {evil}"))
        assert attacker.asked == 0
    assert issuer.asked == 1


@pytest.mark.parametrize("key_id", ["k" * 8000, "../keys", "first\n", "\x00", "http://127.0.0.1:1/"])
def test_an_odd_key_id_is_a_name_that_nobody_published(make_api: MakeApi, issuer: KeyServer, key_id: str) -> None:
    issuer.publish("first", private_key())
    refused = asked(of_issuer(make_api, issuer), named(key_id, private_key()))
    assert_refused(refused)
    assert len(refused.text) < 1000
    assert issuer.asked == 1


def test_the_issuer_is_not_asked_for_a_token_of_another_algorithm(make_api: MakeApi, issuer: KeyServer) -> None:
    issuer.publish("first", private_key())
    api = of_issuer(make_api, issuer)
    assert_refused(asked(api, f"Bearer {jwt.encode({'exp': soon(), 'sub': 'eve'}, SECRET, headers={'kid': 'first'})}"))
    assert_refused(asked(api, f"Bearer {unsigned('none')}"))
    assert issuer.asked == 0


def test_a_redirected_fetch_of_keys_is_not_followed(make_api: MakeApi, issuer: KeyServer) -> None:
    key = private_key()
    with closing(KeyServer()) as elsewhere:
        elsewhere.publish("first", key)
        issuer.redirects_to = elsewhere.url
        assert asked(of_issuer(make_api, issuer), named("first", key)).status_code == 503
        assert issuer.asked == 1
        assert elsewhere.asked == 0


def test_the_tests_own_token_is_a_good_one(api: Api) -> None:
    assert asked(api, f"Bearer {token()}").status_code == 200
