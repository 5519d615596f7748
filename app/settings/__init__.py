"""The service's settings, read once from the environment, validated, and passed down as one frozen value.

A wrong or missing setting raises SettingsError with one line that names it; no secret appears in it, or in a repr.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import SettingsError
from app.process import processors
from app.settings.access import (
    AnnotationsSettings,
    TokenSettings,
    annotations_settings,
    cors_origins,
    token_settings,
    url_prefix,
)
from app.settings.database import DatabaseSettings
from app.settings.detector import (
    DEFAULT_OPTIONS,
    MAX_LABEL_CHARACTERS,
    MIN_CONFIDENCE,
    DetectorOptions,
    DetectorSettings,
    Provider,
    SandboxMode,
    detector_values,
)
from app.settings.logs import LogSettings
from app.settings.reader import Reader

__all__ = [
    "DEFAULT_OPTIONS",
    "MAX_LABEL_CHARACTERS",
    "MIN_CONFIDENCE",
    "AnnotationsSettings",
    "DatabaseSettings",
    "DetectorOptions",
    "DetectorSettings",
    "LogSettings",
    "Provider",
    "SandboxMode",
    "Settings",
    "TokenSettings",
    "server_processes",
]

GIB = 1 << 30
MAX_DELIVERY_WORKERS = 256  # each is a thread and a connection to the annotations service
MAX_DELIVERY_DEADLINE = 20.0  # a message is leased for 30 s, and no request starts that could outlast its lease
HOUR = 3600.0  # the longest timeout in seconds; a larger number is meant as milliseconds
YEAR_HOURS = 8766.0
CENTURY_DAYS = 36_525.0
MAX_COUNT = 1_000_000_000
MAX_WORKERS = 1024  # each is a process with a model in memory; a larger number is a typing error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(DetectorSettings):
    """All settings of the service. Sizes are in bytes, times in seconds unless named otherwise, paths absolute."""

    database: DatabaseSettings
    videos_dir: Path
    images_dir: Path
    annotations: AnnotationsSettings
    tokens: TokenSettings
    max_upload_bytes: int
    upload_idle_timeout: float
    upload_expiry: float
    unfinished_uploads_per_user: int
    sync_wait: float
    max_waiting_runs: int
    max_boxes_per_run: int
    detection_workers: int
    detection: Literal["embedded", "off"]
    dispatcher: Literal["embedded", "off"]
    delivery_workers: int
    delivery_deadline: float
    outbox_retention_days: float
    url_prefix: str  # the path below which a proxy serves the service, such as /detections; or empty
    cors_origins: tuple[str, ...]  # lower case, without a default port
    worker_processors: Literal["one", "all"]  # the processors that the threads of one server process use
    logs: LogSettings
    shared_metrics_dir: Path | None  # where the processes of one server share their metrics; None: they do not

    @property
    def media_folders(self) -> dict[str, Path]:
        """The folder of each media type, by its name."""
        return {"Video": self.videos_dir, "Image": self.images_dir}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read and validate all settings. Raises SettingsError for the first one that is wrong or missing."""
        read = Reader(environ)
        tokens, database = token_settings(read), DatabaseSettings.read(read)
        return cls(
            **detector_values(read),
            database=database,
            videos_dir=_media_folder(read, "VIDEOS_DIR", "var/videos", database),
            images_dir=_media_folder(read, "IMAGES_DIR", "var/images", database),
            annotations=annotations_settings(read, tokens),
            tokens=tokens,
            max_upload_bytes=read.integer("MAX_UPLOAD_BYTES", 16 * GIB, minimum=1),
            upload_idle_timeout=read.number("UPLOAD_IDLE_TIMEOUT_SECONDS", 30, above=0, maximum=HOUR),
            upload_expiry=read.number("UPLOAD_EXPIRY_HOURS", 24, above=0, maximum=YEAR_HOURS) * HOUR,
            unfinished_uploads_per_user=read.integer("UNFINISHED_UPLOADS_PER_USER", 100, minimum=1, maximum=MAX_COUNT),
            sync_wait=read.number("SYNC_WAIT_SECONDS", 60, above=0, maximum=HOUR),
            max_waiting_runs=read.integer("MAX_WAITING_RUNS", 100_000, minimum=1, maximum=MAX_COUNT),
            max_boxes_per_run=read.integer("MAX_BOXES_PER_RUN", 1_000_000, minimum=1, maximum=MAX_COUNT),
            detection_workers=read.integer(
                "DETECTION_WORKERS", processors.available_count(), minimum=1, maximum=MAX_WORKERS
            ),
            detection=read.either("DETECTION", "embedded", "off"),
            dispatcher=read.either("DISPATCHER", "embedded", "off"),
            delivery_workers=read.integer("DELIVERY_WORKERS", 8, minimum=1, maximum=MAX_DELIVERY_WORKERS),
            delivery_deadline=read.number("DELIVERY_DEADLINE_SECONDS", 10, above=0, maximum=MAX_DELIVERY_DEADLINE),
            outbox_retention_days=read.number("OUTBOX_RETENTION_DAYS", 7, above=0, maximum=CENTURY_DAYS),
            url_prefix=url_prefix(read),
            cors_origins=cors_origins(read),
            worker_processors=read.either("WORKER_PROCESSORS", "one", "all"),
            logs=LogSettings.from_env(environ),
            shared_metrics_dir=read.existing_folder("PROMETHEUS_MULTIPROC_DIR"),
        )


def _media_folder(read: Reader, name: str, default: str, database: DatabaseSettings) -> Path:
    folder = read.folder(name, default)
    file = database.file
    if file is not None and file.parent.resolve() == folder.resolve():
        raise SettingsError(f"{name} must be a folder of its own, not {str(folder)!r}, which holds the database.")
    return folder


def server_processes(environ: Mapping[str, str] | None = None) -> int:
    """Return the number of server processes. Raises SettingsError if WEB_CONCURRENCY is not a number of processes."""
    return Reader(environ).integer(
        "WEB_CONCURRENCY", processors.default_server_processes(), minimum=1, maximum=MAX_WORKERS
    )
