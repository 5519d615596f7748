"""The service's settings: read once from the environment, checked whole, then passed down as one frozen value.

This is the only reader of `os.environ`. A wrong or missing setting raises SettingsError with one line that names
it; secrets never appear in that line, nor in the repr of Settings.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.errors import SettingsError

GIB = 1 << 30
HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MIN_SECRET_BYTES = 32

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")

MIN_TILE = 64
MAX_LABEL_CHARACTERS = 255

Provider = Literal["cpu", "cuda"]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How clients' tokens are checked. Exactly one of `secret`, `public_key` and `jwks_url` is set.

    `admin_claim` is a claim's name and the value among its values that makes a token an administrator's.
    """

    algorithm: str
    identity_claim: str
    admin_claim: tuple[str, str]
    audience: str | None
    issuer: str | None
    secret: str | None = field(default=None, repr=False)
    public_key: str | None = field(default=None, repr=False)
    jwks_url: str | None = None


@dataclass(frozen=True, slots=True)
class AnnotationsSettings:
    """Where messages go. Without `url` they wait; without `token` one is minted for each send."""

    url: str | None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """How a model is used. `labels` None: the model's own names; `tile`, in pixels, None: no tiling."""

    labels: tuple[str, ...] | None = None
    tile: int | None = None
    provider: Provider = "cpu"


AS_IT_IS = DetectorOptions()
"""A model with its own labels, looking at whole pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """What a detection needs, with or without the service around it."""

    detector_model: Path | None  # None: the built-in one
    detector_options: DetectorOptions
    detector_confidence: float
    frame_interval: float

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "DetectorSettings":
        """Read and check these settings alone; raises SettingsError at the first that is wrong."""
        return _detector_settings(_Reader(environ))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(DetectorSettings):
    """Every setting of contract §5. Sizes are in bytes, times in seconds, paths absolute."""

    database_url: str = field(repr=False)  # may carry a password
    videos_dir: Path
    images_dir: Path
    annotations: AnnotationsSettings
    tokens: TokenSettings
    max_upload_bytes: int
    upload_idle_timeout: float
    sync_wait: float
    detection_workers: int
    detection: Literal["embedded", "off"]
    dispatcher: Literal["embedded", "off"]
    outbox_retention_days: float
    cors_origins: tuple[str, ...]  # as browsers write them: lower case, without a default port
    shared_figures_dir: Path | None  # where the processes of one server share their figures; None: each has its own

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read and check every setting; raises SettingsError at the first that is wrong or missing."""
        read = _Reader(environ)
        tokens, detector = _token_settings(read), _detector_settings(read)
        return cls(
            detector_model=detector.detector_model,
            detector_options=detector.detector_options,
            detector_confidence=detector.detector_confidence,
            frame_interval=detector.frame_interval,
            database_url=_database_url(read),
            videos_dir=read.path("VIDEOS_DIR", "var/videos"),
            images_dir=read.path("IMAGES_DIR", "var/images"),
            annotations=_annotations_settings(read, tokens),
            tokens=tokens,
            max_upload_bytes=read.integer("MAX_UPLOAD_BYTES", 16 * GIB, minimum=1),
            upload_idle_timeout=read.number("UPLOAD_IDLE_TIMEOUT_SECONDS", 30, above=0),
            sync_wait=read.number("SYNC_WAIT_SECONDS", 60, above=0),
            detection_workers=read.integer("DETECTION_WORKERS", os.cpu_count() or 1, minimum=1),
            detection=read.embedded_or_off("DETECTION"),
            dispatcher=read.embedded_or_off("DISPATCHER"),
            outbox_retention_days=read.number("OUTBOX_RETENTION_DAYS", 7, above=0),
            cors_origins=_cors_origins(read),
            shared_figures_dir=_existing_folder(read, "PROMETHEUS_MULTIPROC_DIR"),
        )


class _Reader:
    """Typed access to the environment; an empty variable counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str | None = None) -> str | None:
        return self._environ.get(name, "").strip() or default

    def path(self, name: str, default: str) -> Path:
        return Path(self.text(name, default) or default).absolute()

    def integer(self, name: str, default: int, *, minimum: int) -> int:
        value = self._parsed(name, default, int, "a whole number")
        if value < minimum:
            raise SettingsError(f"{name} must be at least {minimum}, not {value}.")
        return value

    def number(self, name: str, default: float, *, above: float, maximum: float = 1e9) -> float:
        value = self._parsed(name, default, float, "a number")
        if not above < value <= maximum:
            raise SettingsError(f"{name} must be more than {above:g} and at most {maximum:g}, not {value:g}.")
        return value

    def embedded_or_off(self, name: str) -> Literal["embedded", "off"]:
        match self.text(name, "embedded"):
            case "embedded":
                return "embedded"
            case "off":
                return "off"
            case other:
                raise SettingsError(f"{name} must be embedded or off, not {other!r}.")

    def _parsed(self, name: str, default: Number, parse: Callable[[str], Number], wanted: str) -> Number:
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{name} must be {wanted}, not {text!r}.") from error


def database_url_from_env(environ: Mapping[str, str] = os.environ) -> str:
    """DATABASE_URL alone, for migrations, which need no other setting."""
    return _database_url(_Reader(environ))


def _database_url(read: _Reader) -> str:
    url = read.text("DATABASE_URL", "sqlite:///var/detections.db") or ""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError("DATABASE_URL is not a database URL such as sqlite:///var/detections.db.") from error
    driver, database = parsed.drivername, parsed.database
    if driver == "sqlite" and database in (None, "", ":memory:"):
        raise SettingsError("DATABASE_URL must name a file, as sqlite:///var/detections.db does.")
    if driver not in ("sqlite", "postgresql+psycopg"):
        raise SettingsError(f"DATABASE_URL must begin with sqlite:// or postgresql+psycopg://, not {driver}://.")
    return url


def _token_settings(read: _Reader) -> TokenSettings:
    secret, key_file, jwks_url = (read.text(name) for name in ("JWT_SECRET_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"))
    if sum(source is not None for source in (secret, key_file, jwks_url)) != 1:
        raise SettingsError("Set exactly one of JWT_SECRET_KEY, JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL.")
    algorithm = read.text("JWT_ALGORITHM", "HS256") or ""
    allowed = HMAC_ALGORITHMS if secret else PUBLIC_KEY_ALGORITHMS
    if algorithm not in allowed:
        raise SettingsError(f"JWT_ALGORITHM must be one of {', '.join(allowed)} with the key given, not {algorithm!r}.")
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes; it has {len(secret.encode())}."
        )
    if jwks_url:
        _check_web_address("JWT_JWKS_URL", jwks_url)
    return TokenSettings(
        algorithm=algorithm,
        identity_claim=read.text("JWT_IDENTITY_CLAIM", "sub") or "sub",
        admin_claim=_admin_claim(read),
        audience=read.text("JWT_AUDIENCE"),
        issuer=read.text("JWT_ISSUER"),
        secret=secret,
        public_key=_file_content("JWT_PUBLIC_KEY_FILE", key_file) if key_file else None,
        jwks_url=jwks_url,
    )


def _admin_claim(read: _Reader) -> tuple[str, str]:
    text = read.text("JWT_ADMIN_CLAIM", "roles=admin") or ""
    claim, _, value = (part.strip() for part in text.partition("="))
    if not claim or not value:
        raise SettingsError(f"JWT_ADMIN_CLAIM must be a claim and a value, as roles=admin is, not {text!r}.")
    return claim, value


def _cors_origins(read: _Reader) -> tuple[str, ...]:
    listed = (part.strip() for part in (read.text("CORS_ORIGINS") or "").split(","))
    return tuple(dict.fromkeys(_origin(part) for part in listed if part))


def _origin(text: str) -> str:
    """The origin as browsers write it."""
    found = _ORIGIN.fullmatch(text.lower())
    port = found["port"] if found else None
    if found is None or (port and not 0 < int(port) < 65536):
        raise SettingsError(
            f"CORS_ORIGINS must be origins such as https://suite.example:8443, with commas between, not {text!r}."
        )
    is_default = port is None or int(port) == _DEFAULT_PORTS[found["scheme"]]
    return f"{found['scheme']}://{found['host']}" + ("" if is_default else f":{int(port or 0)}")


def _annotations_settings(read: _Reader, tokens: TokenSettings) -> AnnotationsSettings:
    url, token = read.text("ANNOTATIONS_URL"), read.text("ANNOTATIONS_TOKEN")
    if url:
        _check_web_address("ANNOTATIONS_URL", url)
        if "?" in url or "#" in url:
            raise SettingsError("ANNOTATIONS_URL must end with its path; the service's own paths are put behind it.")
    if url and not token and tokens.secret is None:
        raise SettingsError(
            "ANNOTATIONS_TOKEN is needed: without JWT_SECRET_KEY no token can be minted for ANNOTATIONS_URL."
        )
    return AnnotationsSettings(url=url.rstrip("/") if url else None, token=token)


def _check_web_address(name: str, value: str) -> None:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if "@" in value:  # a password would show in logs, and would replace the token in the Authorization header
        raise SettingsError(f"{name} must not carry a user or a password.")
    if not valid:
        raise SettingsError(f"{name} must be an http:// or https:// address with a host, not {value!r}.")


def _detector_settings(read: _Reader) -> DetectorSettings:
    return DetectorSettings(
        detector_model=_existing_file(read, "DETECTOR_MODEL"),
        detector_options=DetectorOptions(
            labels=_labels(read),
            tile=read.integer("DETECTOR_TILE", 0, minimum=MIN_TILE) if read.text("DETECTOR_TILE") else None,
            provider=_provider(read),
        ),
        detector_confidence=read.number("DETECTOR_CONFIDENCE", 0.45, above=0, maximum=1),
        frame_interval=read.number("FRAME_INTERVAL_SECONDS", 0.5, above=0),
    )


def _labels(read: _Reader) -> tuple[str, ...] | None:
    """Names separated by commas, or, where the text holds a slash, the path of a file with a name on each line."""
    text = read.text("DETECTOR_LABELS")
    if text is None:
        return None
    names = _lines_of("DETECTOR_LABELS", text) if "/" in text else text.split(",")
    labels = tuple(name.strip() for name in names)
    for number, label in enumerate(labels):
        if not 0 < len(label) <= MAX_LABEL_CHARACTERS or not label.isprintable():
            raise SettingsError(
                f"DETECTOR_LABELS must give each class a printable name of at most {MAX_LABEL_CHARACTERS} characters; "
                f"class {number} has {label[:80]!r}."
            )
    return labels


def _lines_of(name: str, path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"{name} must name a readable text file in UTF-8; {path!r} is not one.") from error
    if not lines:
        raise SettingsError(f"{name} must name a file with a name on each line; {path!r} is empty.")
    return lines


def _provider(read: _Reader) -> Provider:
    match read.text("DETECTOR_PROVIDER", "cpu"):
        case "cpu":
            return "cpu"
        case "cuda":
            return "cuda"
        case other:
            raise SettingsError(f"DETECTOR_PROVIDER must be cpu or cuda, not {other!r}.")


def _existing_file(read: _Reader, name: str) -> Path | None:
    text = read.text(name)
    if text is None:
        return None
    path = Path(text).absolute()
    if not path.is_file():
        raise SettingsError(f"{name} must name a file; there is none at {str(path)!r}.")
    return path


def _existing_folder(read: _Reader, name: str) -> Path | None:
    text = read.text(name)
    if text is not None and not Path(text).is_dir():
        raise SettingsError(f"{name} must name a folder; there is none at {str(Path(text).absolute())!r}.")
    return Path(text).absolute() if text else None


def _file_content(name: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} must name a readable PEM file; {path!r} is not one.") from error
