"""gunicorn's own log in the form of ours: every line is one of structlog's, and none has the query of an address."""

import logging
from pathlib import Path
from typing import Any

import structlog

from app.process import logs
from app.process.log_target import TARGET
from app.web.server.gunicorn_internals import Logger, OwnHandler
from app.web.server.redaction import without_query

_STREAM = "-"


class Lines(OwnHandler):
    """Hands each record to structlog."""

    def __init__(self) -> None:
        super().__init__()
        # What is logged is for gunicorn's own level to say: LOG_LEVEL, unless --log-level is given.
        self._log = structlog.wrap_logger(logs.LineLogger(), wrapper_class=structlog.make_filtering_bound_logger(0))

    def emit(self, record: logging.LogRecord) -> None:
        """Log it with the name of its logger; what cannot be formatted is logged as it is."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 (a log line stops nobody)
            text = str(record.msg)
        exc_info = {"exc_info": record.exc_info} if record.exc_info else {}
        self._log.log(record.levelno, without_query(text), logger=record.name, **exc_info)


class OneFormatLogger(Logger):  # type: ignore[misc]
    """`--log-file` leads this whole process's standard error to a file, the lines of the application included."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, with handlers of ours for what would go to a stream or to the log file."""
        super().setup(cfg)
        for log, target in ((self.error_log, cfg.errorlog), (self.access_log, cfg.accesslog)):
            for handler in list(log.handlers):
                if isinstance(handler, logging.StreamHandler) and target in (_STREAM, cfg.errorlog):
                    log.removeHandler(handler)
                    handler.close()
            if target in (_STREAM, cfg.errorlog):
                log.addHandler(Lines())
        if cfg.errorlog == _STREAM:
            TARGET.note_path()
        else:
            TARGET.redirect_to(Path(cfg.errorlog))

    def reopen_files(self) -> None:
        """As gunicorn does at SIGUSR1, and standard error's file as well."""
        super().reopen_files()
        TARGET.reopen()

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        """What an access log's format may name, without queries."""
        found: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        cleaned = {name: without_query(value) if isinstance(value, str) else value for name, value in found.items()}
        return cleaned | {name: "" for name in ("q", "{query_string}e") if name in cleaned}
