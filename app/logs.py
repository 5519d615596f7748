"""Structured logs: one JSON object a line on standard error, with the request's id where there is one.

Nothing logged carries a token, a header or a key: events name their fields one by one.
"""

import logging
import sys

import structlog


def configure() -> None:
    """Set up structlog for this process; to be called once, at its start."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Looked up anew each time: a stream that was put in its place for a while may be closed by now.
        logger_factory=lambda *_names: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
