"""Settings of access: tokens and origins of callers, the URL prefix, and the annotations service."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from jwt import InvalidKeyError, get_algorithm_by_name

from app.errors import SettingsError
from app.settings.reader import Reader

HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MIN_SECRET_BYTES = 32

OWN_PATHS = frozenset(
    {
        "detect",
        "docs",
        "exports",
        "healthz",
        "me",
        "media",
        "metrics",
        "openapi.json",
        "outbox",
        "readyz",
        "static",
        "uploads",
    }
)
"""The first segments of the service's paths, including planned ones."""

_PEM = re.compile(r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----.*?-----END (?P=kind)-----", re.DOTALL)
_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How clients' tokens are checked, by exactly one of `secret`, `public_keys` and `jwks_url`.

    Tokens signed with `previous_secret` are accepted too. `public_keys` are PEM texts. `admin_claim` is the name of a
    claim and the value in it that marks an administrator's token.
    """

    algorithm: str
    identity_claim: str
    admin_claim: tuple[str, str]
    audience: str | None
    issuer: str | None
    secret: str | None = field(default=None, repr=False)
    previous_secret: str | None = field(default=None, repr=False)
    public_keys: tuple[str, ...] = field(default=(), repr=False)
    jwks_url: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that tokens are checked with, the current one first; empty if the issuer publishes them."""
        return tuple(filter(None, (self.secret, self.previous_secret))) or self.public_keys


@dataclass(frozen=True, slots=True)
class AnnotationsSettings:
    """The annotations service. Without `url` messages wait; without `token` one with `audience` and `issuer` is minted
    for each request."""

    url: str | None
    token: str | None = field(default=None, repr=False)
    audience: str | None = None
    issuer: str | None = None


def token_settings(read: Reader) -> TokenSettings:
    """Read how clients' tokens are checked. Raises SettingsError if that is ambiguous, missing or weak."""
    secret, jwks_url = read.text("JWT_SECRET_KEY"), read.text("JWT_JWKS_URL")
    key_file = read.file_name("JWT_PUBLIC_KEY_FILE")
    if sum(source is not None for source in (secret, key_file, jwks_url)) != 1:
        raise SettingsError("Set exactly one of JWT_SECRET_KEY, JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL.")
    algorithm = read.text("JWT_ALGORITHM", "HS256") or ""
    allowed = HMAC_ALGORITHMS if secret else PUBLIC_KEY_ALGORITHMS
    if algorithm not in allowed:
        raise SettingsError(f"JWT_ALGORITHM must be one of {', '.join(allowed)} with the key given, not {algorithm!r}.")
    previous = read.text("JWT_SECRET_KEY_PREVIOUS")
    if previous is not None and (secret is None or previous == secret):
        reason = "JWT_SECRET_KEY is not set" if secret is None else "both are equal"
        raise SettingsError(f"JWT_SECRET_KEY_PREVIOUS must be the key before JWT_SECRET_KEY, but {reason}.")
    for name, key in (("JWT_SECRET_KEY", secret), ("JWT_SECRET_KEY_PREVIOUS", previous)):
        if key and len(key.encode()) < MIN_SECRET_BYTES:
            raise SettingsError(f"{name} must have at least {MIN_SECRET_BYTES} bytes; it has {len(key.encode())}.")
    return TokenSettings(
        algorithm=algorithm,
        identity_claim=read.text("JWT_IDENTITY_CLAIM", "sub") or "sub",
        admin_claim=_admin_claim(read),
        audience=read.text("JWT_AUDIENCE"),
        issuer=read.text("JWT_ISSUER"),
        secret=secret,
        previous_secret=previous,
        public_keys=_public_keys(key_file, algorithm) if key_file else (),
        jwks_url=read.web_address("JWT_JWKS_URL"),
    )


def _public_keys(path: str, algorithm: str) -> tuple[str, ...]:
    """Return all keys of a PEM file. Raises SettingsError unless each is a public key for the algorithm."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"JWT_PUBLIC_KEY_FILE must name a readable PEM file; {path!r} is not one.") from error
    found = list(_PEM.finditer(text))
    if not found:
        raise SettingsError(f"JWT_PUBLIC_KEY_FILE must name a readable PEM file; {path!r} holds no key.")
    for number, one in enumerate(found, 1):
        which = f"JWT_PUBLIC_KEY_FILE: key {number} of {len(found)} in {path!r}"
        if "PRIVATE" in one["kind"]:
            raise SettingsError(f"{which} is a private key; only public ones belong here.")
        try:
            get_algorithm_by_name(algorithm).prepare_key(one[0])
        except (InvalidKeyError, ValueError, TypeError) as error:
            raise SettingsError(f"{which} is not a public key for JWT_ALGORITHM={algorithm}.") from error
    return tuple(one[0] for one in found)


def _admin_claim(read: Reader) -> tuple[str, str]:
    text = read.text("JWT_ADMIN_CLAIM", "roles=admin") or ""
    claim, _, value = (part.strip() for part in text.partition("="))
    if not claim or not value:
        raise SettingsError(f"JWT_ADMIN_CLAIM must be a claim and a value, such as roles=admin, not {text!r}.")
    return claim, value


def cors_origins(read: Reader) -> tuple[str, ...]:
    """Read the origins whose pages may call the API, as browsers send them: in lower case, without a default port."""
    listed = (part.strip() for part in (read.text("CORS_ORIGINS") or "").split(","))
    return tuple(dict.fromkeys(_origin(part) for part in listed if part))


def _origin(text: str) -> str:
    """Return an origin as browsers send it."""
    found = _ORIGIN.fullmatch(text.lower())
    port = found["port"] if found else None
    if found is None or (port and not 0 < int(port) < 65536):
        raise SettingsError(
            f"CORS_ORIGINS must be origins such as https://suite.example:8443, separated by commas, not {text!r}."
        )
    is_default = port is None or int(port) == _DEFAULT_PORTS[found["scheme"]]
    return f"{found['scheme']}://{found['host']}" + ("" if is_default else f":{int(port or 0)}")


def url_prefix(read: Reader) -> str:
    """Read the path below which a proxy serves the service, such as /detections; empty without one."""
    text = (read.text("URL_PREFIX") or "").rstrip("/")
    if not text:
        return ""
    segments = text.split("/")[1:]
    if not _PREFIX.fullmatch(text) or any(segment.strip(".") == "" for segment in segments):
        raise SettingsError(
            f"URL_PREFIX must be a path such as /detections, of letters, digits, -, . and _, not {text!r}."
        )
    if segments[0] in OWN_PATHS:  # it would be ambiguous whether a proxy has stripped the prefix
        raise SettingsError(f"URL_PREFIX must not begin with /{segments[0]}, which is a path of the service itself.")
    return text


def annotations_settings(read: Reader, tokens: TokenSettings) -> AnnotationsSettings:
    """Read the annotations service's settings. Raises SettingsError if its requests would have no token."""
    url, token = read.web_address("ANNOTATIONS_URL"), read.text("ANNOTATIONS_TOKEN")
    if url and ("?" in url or "#" in url):
        raise SettingsError("ANNOTATIONS_URL must not have a query or a fragment; request paths are appended to it.")
    if url and not token and tokens.secret is None:
        raise SettingsError(
            "ANNOTATIONS_TOKEN is needed: without JWT_SECRET_KEY no token can be minted for ANNOTATIONS_URL."
        )
    return AnnotationsSettings(
        url=url.rstrip("/") if url else None,
        token=token,
        audience=read.text("ANNOTATIONS_AUDIENCE") or tokens.audience,
        issuer=read.text("ANNOTATIONS_ISSUER") or tokens.issuer,
    )
