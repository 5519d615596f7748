"""Every setting: its default, its values, and the one line that names it if it is wrong. No secret is shown."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from app.errors import SettingsError
from app.process.processors import available_count
from app.services import token_source
from app.settings import DatabaseSettings, DetectorOptions, DetectorSettings, Settings, server_processes

SECRET = "a secret of the tests that is long enough"
LEAST = {"JWT_SECRET_KEY": SECRET}
PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaNS+EVnotd/x2dh4qj2kBAqf/rif
V5X/oBfSnGnfbrkwz4fIi90/ueelK9TWUphSOxIqC3aiuWmYI2Ew/i6PSQ==
-----END PUBLIC KEY-----
"""
OTHER_PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfYM9Q1NQNK0Z3h3VEkvQxmOMi+lj
E0R2mScgFetSNs4aRQ5/e4hFI5HlytNCAEnCfCtwg2rRmEHIQwqCZd04aA==
-----END PUBLIC KEY-----
"""


def settings(**environ: str) -> Settings:
    return Settings.from_env(LEAST | environ)


def refusal(environ: Mapping[str, str]) -> str:
    """Return the error of a start, which must be one line."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(environ)
    message = str(refused.value)
    assert message.isprintable()
    return message


def test_without_anything_but_a_key_every_default_is_the_contracts() -> None:
    found = settings()
    assert found.database.url == f"sqlite:///{Path.cwd()}/var/detections.db"
    assert found.videos_dir == Path.cwd() / "var/videos"
    assert found.images_dir == Path.cwd() / "var/images"
    assert found.annotations.url is None
    assert found.annotations.token is None
    assert found.tokens.algorithm == "HS256"
    assert found.tokens.identity_claim == "sub"
    assert found.tokens.audience is None
    assert found.tokens.issuer is None
    assert found.annotations.audience is None
    assert found.annotations.issuer is None
    assert found.tokens.secret == SECRET
    assert found.tokens.public_keys == ()
    assert found.tokens.jwks_url is None
    assert found.max_upload_bytes == 17179869184
    assert found.upload_idle_timeout == 30
    assert found.sync_wait == 60
    assert found.detector_model is None
    assert found.detector_confidence == 0.45
    assert found.frame_interval == 0.5
    assert found.detector_options == DetectorOptions(labels=None, tile=None, provider="cpu")
    assert found.detection == "embedded"
    assert found.dispatcher == "embedded"
    assert found.outbox_retention_days == 7
    assert found.detection_workers == available_count()
    assert found.max_picture_pixels == 1_000_000_000
    assert found.max_waiting_runs == 100_000
    assert found.max_boxes_per_run == 1_000_000
    assert found.delivery_workers == 8
    assert found.delivery_deadline == 10
    assert found.logs.level == "info"
    assert found.logs.format == "json"
    assert found.cors_origins == ()
    assert found.tokens.admin_claim == ("roles", "admin")
    assert found.url_prefix == ""


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("DATABASE_URL", "sqlite:////data/x.db", lambda found: found.database.url == "sqlite:////data/x.db"),
        ("DATABASE_URL", "postgresql+psycopg://u:p@h/d", lambda found: found.database.url.endswith("u:p@h/d")),
        ("VIDEOS_DIR", "/data/videos", lambda found: found.videos_dir == Path("/data/videos")),
        ("IMAGES_DIR", "pictures", lambda found: found.images_dir == Path.cwd() / "pictures"),
        ("ANNOTATIONS_URL", "https://host:8443/base/", lambda found: found.annotations.url == "https://host:8443/base"),
        ("ANNOTATIONS_TOKEN", "token", lambda found: found.annotations.token == "token"),
        ("JWT_ALGORITHM", "HS512", lambda found: found.tokens.algorithm == "HS512"),
        ("JWT_IDENTITY_CLAIM", "user", lambda found: found.tokens.identity_claim == "user"),
        ("JWT_AUDIENCE", "suite", lambda found: found.tokens.audience == "suite"),
        ("JWT_ISSUER", "login", lambda found: found.tokens.issuer == "login"),
        ("JWT_AUDIENCE", "ours", lambda found: found.annotations.audience == "ours"),
        ("JWT_ISSUER", "issuer", lambda found: found.annotations.issuer == "issuer"),
        ("ANNOTATIONS_AUDIENCE", "annotations", lambda found: found.annotations.audience == "annotations"),
        ("ANNOTATIONS_ISSUER", "detections", lambda found: found.annotations.issuer == "detections"),
        ("MAX_UPLOAD_BYTES", "1", lambda found: found.max_upload_bytes == 1),
        ("UPLOAD_IDLE_TIMEOUT_SECONDS", "0.5", lambda found: found.upload_idle_timeout == 0.5),
        ("SYNC_WAIT_SECONDS", "1e2", lambda found: found.sync_wait == 100),
        ("DETECTOR_MODEL", __file__, lambda found: found.detector_model == Path(__file__)),
        ("DETECTOR_LABELS", "van, a truck", lambda found: found.detector_options.labels == ("van", "a truck")),
        ("DETECTOR_TILE", "640", lambda found: found.detector_options.tile == 640),
        ("DETECTOR_PROVIDER", "cuda", lambda found: found.detector_options.provider == "cuda"),
        ("DETECTOR_CONFIDENCE", "1", lambda found: found.detector_confidence == 1),
        ("FRAME_INTERVAL_SECONDS", "0.04", lambda found: found.frame_interval == 0.04),
        ("DETECTION_WORKERS", "3", lambda found: found.detection_workers == 3),
        ("DETECTION", "off", lambda found: found.detection == "off"),
        ("MAX_PICTURE_PIXELS", "192000000", lambda found: found.max_picture_pixels == 192_000_000),
        ("MAX_BOXES_PER_RUN", "5000", lambda found: found.max_boxes_per_run == 5000),
        ("MAX_WAITING_RUNS", "1000", lambda found: found.max_waiting_runs == 1000),
        ("DELIVERY_WORKERS", "32", lambda found: found.delivery_workers == 32),
        ("DELIVERY_DEADLINE_SECONDS", "2.5", lambda found: found.delivery_deadline == 2.5),
        ("LOG_LEVEL", "warning", lambda found: found.logs.level == "warning"),
        ("LOG_FORMAT", "text", lambda found: found.logs.format == "text"),
        ("DISPATCHER", "off", lambda found: found.dispatcher == "off"),
        ("WORKER_PROCESSORS", "all", lambda found: found.worker_processors == "all"),
        ("OUTBOX_RETENTION_DAYS", "0.5", lambda found: found.outbox_retention_days == 0.5),
        (
            "JWT_ADMIN_CLAIM",
            "groups=cn=operators",
            lambda found: found.tokens.admin_claim == ("groups", "cn=operators"),
        ),
        ("CORS_ORIGINS", "https://Suite.example", lambda found: found.cors_origins == ("https://suite.example",)),
        ("CORS_ORIGINS", "http://a:080, http://[::1]:5173,", lambda found: len(found.cors_origins) == 2),
        ("URL_PREFIX", "/detections/", lambda found: found.url_prefix == "/detections"),
        ("URL_PREFIX", "/suite/v1.2/detections_a", lambda found: found.url_prefix == "/suite/v1.2/detections_a"),
        ("PROMETHEUS_MULTIPROC_DIR", "tests", lambda found: found.shared_metrics_dir == Path.cwd() / "tests"),
    ],
)
def test_each_setting_is_read(name: str, value: str, read: object) -> None:
    assert callable(read)
    assert read(settings(**{name: f" {value} "}))
    assert not read(settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "mysql://root:hunter22@host/db"),
        ("DATABASE_URL", "postgresql://u:hunter22@host/db"),
        ("DATABASE_URL", "postgresql+psycopg://u:hunter22@host:port/db"),
        ("ANNOTATIONS_URL", "host:8080"),
        ("ANNOTATIONS_URL", "ftp://host"),
        ("ANNOTATIONS_URL", "http://"),
        ("ANNOTATIONS_URL", "http://host:99999"),
        ("ANNOTATIONS_URL", "http://[::1"),
        ("ANNOTATIONS_URL", "http://ada:hunter22@host"),
        ("ANNOTATIONS_URL", "ftp://ada:hunter22@host"),
        ("ANNOTATIONS_URL", "http://host/?key=hunter22"),
        ("JWT_SECRET_KEY", "hunter22"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "RS256"),
        ("JWT_ALGORITHM", "two\nlines"),
        ("MAX_UPLOAD_BYTES", "0"),
        ("MAX_UPLOAD_BYTES", "-1"),
        ("MAX_UPLOAD_BYTES", "16 GiB"),
        ("MAX_UPLOAD_BYTES", "1.5"),
        ("MAX_PICTURE_PIXELS", "0"),
        ("MAX_PICTURE_PIXELS", "100 MP"),
        ("MAX_WAITING_RUNS", "0"),
        ("DELIVERY_WORKERS", "0"),
        ("DELIVERY_WORKERS", "257"),
        ("DELIVERY_DEADLINE_SECONDS", "0"),
        ("DELIVERY_DEADLINE_SECONDS", "21"),
        ("MAX_BOXES_PER_RUN", "0"),
        ("DETECTOR_CONFIDENCE", "0.009"),
        ("LOG_LEVEL", "INFO"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_FORMAT", "xml"),
        ("UPLOAD_IDLE_TIMEOUT_SECONDS", "0"),
        ("UPLOAD_IDLE_TIMEOUT_SECONDS", "nan"),
        ("UPLOAD_IDLE_TIMEOUT_SECONDS", "soon"),
        ("SYNC_WAIT_SECONDS", "-1"),
        ("SYNC_WAIT_SECONDS", "inf"),
        ("DETECTOR_MODEL", "/there/is/no such\nmodel.onnx"),
        ("DETECTOR_LABELS", "van,,truck"),
        ("DETECTOR_LABELS", ","),
        ("DETECTOR_LABELS", "van,two\nlines"),
        ("DETECTOR_LABELS", "van," + 256 * "x"),
        ("DETECTOR_LABELS", "/there/is/no such\nfile.txt"),
        ("DETECTOR_LABELS", "/dev/null"),
        ("DETECTOR_TILE", "0"),
        ("DETECTOR_TILE", "63"),
        ("DETECTOR_TILE", "-640"),
        ("DETECTOR_TILE", "640x640"),
        ("DETECTOR_PROVIDER", "gpu"),
        ("DETECTOR_PROVIDER", "two\nlines"),
        ("DETECTOR_CONFIDENCE", "0"),
        ("DETECTOR_CONFIDENCE", "1.01"),
        ("DETECTOR_CONFIDENCE", "45%"),
        ("FRAME_INTERVAL_SECONDS", "0"),
        ("DETECTION_WORKERS", "0"),
        ("DETECTION_WORKERS", "1025"),
        ("DETECTION", "on"),
        ("DISPATCHER", "on"),
        ("WORKER_PROCESSORS", "2"),
        ("DISPATCHER", "two\nlines"),
        ("JWT_ADMIN_CLAIM", "admin"),
        ("JWT_ADMIN_CLAIM", "roles="),
        ("JWT_ADMIN_CLAIM", "=admin"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "suite.example"),
        ("CORS_ORIGINS", "https://*.suite.example"),
        ("CORS_ORIGINS", "https://suite.example/"),
        ("CORS_ORIGINS", "https://suite.example/page"),
        ("CORS_ORIGINS", "https://ada@suite.example"),
        ("CORS_ORIGINS", "https://suite.example:0"),
        ("CORS_ORIGINS", "https://suite.example:99999"),
        ("CORS_ORIGINS", "https://suite.example https://other.example"),
        ("CORS_ORIGINS", "https://suite.example,two\nlines"),
        ("URL_PREFIX", "detections"),
        ("URL_PREFIX", "//detections"),
        ("URL_PREFIX", "/a//b"),
        ("URL_PREFIX", "/a/../b"),
        ("URL_PREFIX", "/a b"),
        ("URL_PREFIX", "/a%20b"),
        ("URL_PREFIX", "/a?b"),
        ("URL_PREFIX", "https://host/detections"),
        ("URL_PREFIX", "/media"),
        ("URL_PREFIX", "/media/detections"),
        ("PROMETHEUS_MULTIPROC_DIR", "/there/is/no such\nfolder"),
        ("OUTBOX_RETENTION_DAYS", "-7"),
        ("OUTBOX_RETENTION_DAYS", "a\nweek"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_line_that_names_the_setting(name: str, value: str) -> None:
    message = refusal(LEAST | {name: value})
    assert name in message
    assert "hunter22" not in message


def test_without_a_key_for_tokens_the_start_is_refused() -> None:
    message = refusal({})
    assert all(name in message for name in ("JWT_SECRET_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"))
    assert "JWT_SECRET_KEY" in refusal({"JWT_SECRET_KEY": " "})


def test_origins_are_normalized_as_browsers_write_them() -> None:
    found = settings(
        CORS_ORIGINS="HTTPS://Suite.Example:443,http://suite.example:80,http://localhost:05173,http://a,http://a"
    )
    expected = ("https://suite.example", "http://suite.example", "http://localhost:5173", "http://a")
    assert found.cors_origins == expected


def test_two_keys_for_tokens_are_one_too_many() -> None:
    message = refusal(LEAST | {"JWT_JWKS_URL": "https://login/keys"})
    assert "JWT_JWKS_URL" in message
    assert SECRET not in message


def test_a_public_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(f"the next one\n{PUBLIC_KEY}and the one of now\n{OTHER_PUBLIC_KEY}")
    found = Settings.from_env({"JWT_PUBLIC_KEY_FILE": str(path), "JWT_ALGORITHM": "ES256"})
    assert [f"{key}\n" for key in found.tokens.public_keys] == [PUBLIC_KEY, OTHER_PUBLIC_KEY]
    assert found.tokens.secret is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PUBLIC_KEY.replace("MFkw", "MFk"), "key 1 of 1"),
        (PUBLIC_KEY + OTHER_PUBLIC_KEY.replace("MFkw", "MFk"), "key 2 of 2"),
        (PUBLIC_KEY.replace("PUBLIC", "EC PRIVATE"), "private key"),
        ("", "holds no key"),
        (PUBLIC_KEY[:60], "holds no key"),
    ],
)
def test_a_public_key_that_cannot_be_parsed_is_named(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content)
    assert reason in refusal({"JWT_PUBLIC_KEY_FILE": str(path), "JWT_ALGORITHM": "ES256"})


def test_a_public_key_of_another_algorithm_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(PUBLIC_KEY)
    assert "JWT_ALGORITHM=EdDSA" in refusal({"JWT_PUBLIC_KEY_FILE": str(path), "JWT_ALGORITHM": "EdDSA"})


@pytest.mark.parametrize("value", [SECRET, "short"])
def test_the_previous_secret_is_another_one_and_as_long(value: str) -> None:
    message = refusal(LEAST | {"JWT_SECRET_KEY_PREVIOUS": value})
    assert "JWT_SECRET_KEY_PREVIOUS" in message
    assert value not in message


def test_a_previous_secret_needs_one_of_now() -> None:
    environ = {"JWT_JWKS_URL": "https://login/keys", "JWT_ALGORITHM": "RS256", "JWT_SECRET_KEY_PREVIOUS": SECRET}
    assert "JWT_SECRET_KEY_PREVIOUS" in refusal(environ)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00binary"])
def test_a_public_key_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "key\n.pem"
    if content is not None:
        path.write_bytes(content)
    assert "JWT_PUBLIC_KEY_FILE" in refusal({"JWT_PUBLIC_KEY_FILE": str(path), "JWT_ALGORITHM": "RS256"})


@pytest.mark.parametrize("algorithm", ["HS256", "none", "rs256"])
def test_a_public_key_is_never_used_as_a_secret(algorithm: str) -> None:
    environ = {"JWT_JWKS_URL": "https://login/keys", "JWT_ALGORITHM": algorithm}
    assert "JWT_ALGORITHM" in refusal(environ)


@pytest.mark.parametrize("address", ["login", "file:///etc/passwd", "https://ada:hunter22@login/keys"])
def test_a_key_address_that_is_none_is_named(address: str) -> None:
    message = refusal({"JWT_JWKS_URL": address, "JWT_ALGORITHM": "RS256"})
    assert "JWT_JWKS_URL" in message
    assert "hunter22" not in message


def test_without_a_secret_sending_needs_a_token_of_its_own() -> None:
    environ = {
        "JWT_JWKS_URL": "https://login/keys?set=2",
        "JWT_ALGORITHM": "ES256",
        "ANNOTATIONS_URL": "http://host",
    }
    assert "ANNOTATIONS_TOKEN" in refusal(environ)
    assert Settings.from_env(environ | {"ANNOTATIONS_TOKEN": "token"}).annotations.token == "token"


def test_no_secret_shows_in_what_is_printed_of_the_settings(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(PUBLIC_KEY)
    first = settings(ANNOTATIONS_TOKEN="hidden-token", DATABASE_URL="postgresql+psycopg://u:hidden-password@h/d")
    second = Settings.from_env({"JWT_PUBLIC_KEY_FILE": str(key), "JWT_ALGORITHM": "ES256"})
    shown = f"{first} {first!r} {first.tokens!r} {first.annotations!r} {second!r}"
    assert "hidden" not in shown
    assert "BEGIN" not in shown
    assert SECRET not in shown


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        settings().dispatcher = "off"  # type: ignore[misc]


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_counts_as_unset(value: str) -> None:
    names = ("DATABASE_URL", "VIDEOS_DIR", "ANNOTATIONS_URL", "MAX_UPLOAD_BYTES", "DISPATCHER", "JWT_AUDIENCE")
    assert settings(**dict.fromkeys(names, value)) == settings()


def test_labels_may_stand_in_a_file_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("van\r\npick-up, large\nfütterung\n\n", encoding="utf-8")
    assert settings(DETECTOR_LABELS=str(path)).detector_options.labels == ("van", "pick-up, large", "fütterung")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"van\n\ntruck\n", b"van\ntru\0ck\n"])
def test_a_file_that_does_not_name_every_class_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert "DETECTOR_LABELS" in refusal(LEAST | {"DETECTOR_LABELS": str(path)})


def test_a_detection_without_the_service_needs_no_setting_at_all() -> None:
    found = DetectorSettings.from_env({})
    assert found.detector_model is None
    assert found.detector_confidence == 0.45
    assert found.frame_interval == 0.5
    with pytest.raises(SettingsError, match="DETECTOR_TILE"):
        DetectorSettings.from_env({"DETECTOR_TILE": "small"})


def test_migrations_need_the_address_of_the_database_alone() -> None:
    assert DatabaseSettings.from_env({"DATABASE_URL": "sqlite:////x.db"}).url == "sqlite:////x.db"
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        DatabaseSettings.from_env({"DATABASE_URL": "x"})


def test_a_relative_path_of_a_database_starts_where_the_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = DatabaseSettings.from_env({"DATABASE_URL": "sqlite:///sub/a%20b#ü%3F.db"})
    assert make_url(found.url).database == f"{tmp_path}/sub/a b#ü?.db"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///file::memory:", "file::memory:"),
        ("sqlite:///file:x.db", "file:x.db"),
        ("sqlite://x/d.db", "four before an absolute one"),
        ("sqlite:////x/a?b/d.db", "%3F"),
        ("sqlite:////x/d.db?mode=ro", "mode=ro"),
        ("sqlite:////x/d.db?timeout=5", "timeout=5"),
    ],
)
def test_an_sqlite_address_that_means_another_file_than_it_seems_to_is_refused_by_name(url: str, named: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as refused:
        DatabaseSettings.from_env({"DATABASE_URL": url})
    assert named in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_pooler_and_a_connection_to_listen_on_are_for_postgresql() -> None:
    postgres = {"DATABASE_URL": "postgresql+psycopg://u:p@pooler/d"}
    found = DatabaseSettings.from_env(postgres)
    assert found.pooler == "none"
    assert found.listen_url is None
    direct = "postgresql+psycopg://u:secret@server/d"
    found = DatabaseSettings.from_env(postgres | {"DATABASE_POOLER": "transaction", "DATABASE_LISTEN_URL": direct})
    assert found.pooler == "transaction"
    assert found.listen_url == direct
    assert "secret" not in repr(found)
    for name, value in (("DATABASE_POOLER", "transaction"), ("DATABASE_LISTEN_URL", direct)):
        with pytest.raises(SettingsError, match=name):
            DatabaseSettings.from_env({name: value})
    for wrong in ("session", "pgbouncer"):
        with pytest.raises(SettingsError, match=f"DATABASE_POOLER must be none or transaction, not '{wrong}'"):
            DatabaseSettings.from_env(postgres | {"DATABASE_POOLER": wrong})
    for wrong in ("sqlite:///x.db", "x"):
        with pytest.raises(SettingsError, match="DATABASE_LISTEN_URL"):
            DatabaseSettings.from_env(postgres | {"DATABASE_LISTEN_URL": wrong})


@given(
    st.sampled_from(
        ["MAX_UPLOAD_BYTES", "SYNC_WAIT_SECONDS", "DETECTOR_CONFIDENCE", "DATABASE_URL", "ANNOTATIONS_URL"]
    ),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=60),
)
def test_any_text_is_either_read_or_refused_in_one_line_that_names_the_setting(name: str, value: str) -> None:
    try:
        settings(**{name: value})
        message = name
    except SettingsError as error:
        message = str(error)
    assert name in message
    assert "\n" not in message


def test_tokens_for_the_annotations_service_name_its_own_audience_and_issuer_before_ours(tmp_path: Path) -> None:
    """A service checks that `aud` is itself."""
    environ = {
        "JWT_SECRET_KEY": SECRET,
        "JWT_AUDIENCE": "detections",
        "JWT_ISSUER": "login",
        "DATABASE_URL": f"sqlite:///{tmp_path}/d.db",
        "VIDEOS_DIR": str(tmp_path / "videos"),
        "IMAGES_DIR": str(tmp_path / "images"),
        "ANNOTATIONS_AUDIENCE": "annotations",
    }
    for audience, issuer, more in (
        ("annotations", "login", {}),
        ("annotations", "us", {"ANNOTATIONS_ISSUER": "us"}),
    ):
        source = token_source(Settings.from_env(environ | more))
        claims = jwt.decode(source.token_for("ada"), SECRET, algorithms=["HS256"], audience=audience, issuer=issuer)
        assert claims["aud"] == audience
        assert claims["iss"] == issuer


@pytest.mark.parametrize("value", ['"text"', "'text'", '"/data', "1'"])
@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "VIDEOS_DIR", "IMAGES_DIR", "ANNOTATIONS_URL", "ANNOTATIONS_TOKEN", "ANNOTATIONS_AUDIENCE"),
        *("JWT_SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS", "JWT_ALGORITHM", "JWT_IDENTITY_CLAIM", "JWT_ADMIN_CLAIM"),
        *("JWT_AUDIENCE", "JWT_ISSUER", "MAX_UPLOAD_BYTES", "SYNC_WAIT_SECONDS", "DETECTOR_MODEL", "DETECTOR_LABELS"),
        *("DETECTION_WORKERS", "DISPATCHER", "LOG_LEVEL", "URL_PREFIX", "CORS_ORIGINS", "DATABASE_POOLER"),
    ],
)
def test_a_value_in_quotes_is_refused_by_name_and_not_shown(name: str, value: str) -> None:
    """`docker run --env-file` does not remove quotes."""
    message = refusal(LEAST | {name: value})
    assert message.startswith(f"{name} ")
    assert value not in message


@pytest.mark.parametrize("value", ["~/data", "$HOME/data", "${HOME}/data"])
@pytest.mark.parametrize("name", ["VIDEOS_DIR", "IMAGES_DIR", "DETECTOR_MODEL", "DETECTOR_LABELS"])
def test_a_path_that_a_shell_would_expand_is_refused(name: str, value: str) -> None:
    assert refusal(LEAST | {name: value}).startswith(f"{name} ")


def test_a_media_folder_is_neither_a_file_nor_the_root_nor_the_database_s(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/detections.db"}
    for name, value in (
        ("VIDEOS_DIR", tmp_path / "file"),
        ("IMAGES_DIR", "/"),
        ("IMAGES_DIR", "/usr/.."),
        ("VIDEOS_DIR", tmp_path),
    ):
        message = refusal(LEAST | database | {name: str(value)})
        assert message.startswith(f"{name} ")


def test_a_model_that_is_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert "empty" in refusal(LEAST | {"DETECTOR_MODEL": str(tmp_path / "model.onnx")})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYNC_WAIT_SECONDS", "60000"),
        ("UPLOAD_IDLE_TIMEOUT_SECONDS", "30000"),
        ("FRAME_INTERVAL_SECONDS", "0.0001"),
        ("FRAME_INTERVAL_SECONDS", "86400"),
        ("OUTBOX_RETENTION_DAYS", "604800"),
        ("MAX_WAITING_RUNS", "1" + 12 * "0"),
        ("MAX_BOXES_PER_RUN", "1" + 12 * "0"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(name: str, value: str) -> None:
    assert refusal(LEAST | {name: value}).startswith(f"{name} ")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1000000", '"2"'])
def test_fewer_than_one_server_process_or_far_too_many_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="WEB_CONCURRENCY"):
        server_processes({"WEB_CONCURRENCY": value})
    assert server_processes({"WEB_CONCURRENCY": "3"}) == 3
