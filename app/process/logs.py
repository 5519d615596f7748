"""Structured logs on standard error: a line for each event, with the request id if there is one.

A line is a JSON object, or text with LOG_FORMAT=text: time, level, event, fields. Events name each field, so no token,
header or key is logged. A command on a terminal prints warnings and errors as text instead.
"""

import json
import logging
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, WrappedLogger

from app.process.log_target import TARGET
from app.settings import LogSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PLAIN = re.compile(r"[!#-~]+")  # printable ASCII without spaces and quotes


def configure(settings: LogSettings) -> None:
    """Configure structlog for this process, at its start."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if settings.format == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda *_names: LineLogger(),
        cache_logger_on_first_use=False,
    )


def log_uncaught_exceptions() -> None:
    """Log exceptions that end a thread or this process."""
    log = structlog.get_logger()
    threading.excepthook = lambda of: log.critical(
        "uncaught", thread=getattr(of.thread, "name", None), exc_info=of.exc_value
    )
    sys.excepthook = lambda _type, error, _traceback: log.critical("uncaught", exc_info=error)


@contextmanager
def in_words(say: Callable[[str], None]) -> Iterator[None]:
    """Within the block, pass warnings and errors of all threads to `say` as text, and drop other events."""
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _worded],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_names: _Speaker(say),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _as_text(_logger: WrappedLogger, _level: str, event: EventDict) -> str:
    """Format an event as one line, with the indented lines of an exception after it.

    Values with other than plain characters are quoted, so that none can look like a line of its own.
    """
    head = f"{event.pop('timestamp')} {event.pop('level'):<7} {event.pop('event')}"
    exception = event.pop("exception", None)
    fields = (f"{name}={_plain(value)}" for name, value in event.items())
    line = " ".join((head, *fields))
    return line if exception is None else f"{line}\n{textwrap.indent(exception, '    ')}"


def _plain(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class LineLogger:
    """The logger that structlog calls, with a method for each level; it never raises."""

    def __init__(self) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = TARGET.write


class _Speaker:
    """The logger that structlog calls within `in_words`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.warning = self.error = self.critical = say


def _worded(_logger: WrappedLogger, _level: str, event: EventDict) -> str:
    """Format `circuit_open` and its fields as `circuit open: endpoint https://…, seconds 1.5, reason …`."""
    title = str(event.pop("event")).replace("_", " ")
    exception = event.pop("exception", None)
    fields = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in event.items())
    return "\n".join(filter(None, (f"{title}: {fields}" if fields else title, exception)))
