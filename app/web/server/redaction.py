"""Removes signatures of links from gunicorn's own log lines, which contain complete request addresses."""

import logging
import re

from app.web.server.gunicorn_internals import LOGGERS

_NAME = "".join(f"(?:{letter}|%{ord(letter):02x})" for letter in "signature")
"""The parameter's name; each letter may be percent-encoded."""

_SIGNATURE = re.compile(rf"((?i:{_NAME})=)[^&\s\"']+")

_QUERY = re.compile(r"\?[^\s\"'<>]*(?:=|%3[dD])[^\s\"'<>]*")


class WithoutSignatures(logging.Filter):
    """A filter that changes records and keeps all of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, dict):  # the access log's mapping has a type of its own, so update it in place
            record.args.update({name: _cleaned(value) for name, value in record.args.items()})
        elif record.args:
            record.args = tuple(_cleaned(value) for value in record.args)
        record.msg = str(_cleaned(record.msg)) if isinstance(record.msg, str) else record.msg
        return True


def install() -> None:
    """Add the filter to gunicorn's loggers, in this process and those that it forks."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


def without_query(text: str) -> str:
    """Return the text without the queries of addresses, which may contain a token."""
    return _QUERY.sub("?…", text)


def without_signatures(text: str) -> str:
    """Return the text without the signatures of links."""
    return _SIGNATURE.sub(r"\1…", text)


def _cleaned(value: object) -> object:
    return without_signatures(value) if isinstance(value, str) else value


_FILTER = WithoutSignatures()
