"""Keeps signatures of links out of what gunicorn itself logs: it names the whole address of a request that it could
not answer, and of every one where an access log was asked for. Our own lines name the path alone."""

import logging
import re

from app.web.server.gunicorn_internals import LOGGERS

_NAME = "".join(f"(?:{letter}|%{ord(letter):02x})" for letter in "signature")
"""The parameter's name, any letter of which may come percent-encoded and is read as itself."""

_SIGNATURE = re.compile(rf"((?i:{_NAME})=)[^&\s\"']+")

_QUERY = re.compile(r"\?[^\s\"'<>]*(?:=|%3[dD])[^\s\"'<>]*")


class WithoutSignatures(logging.Filter):
    """Changes each record, and lets every one pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, dict):  # the access log's, of a kind of its own, so it is changed and not replaced
            record.args.update({name: _cleaned(value) for name, value in record.args.items()})
        elif record.args:
            record.args = tuple(_cleaned(value) for value in record.args)
        record.msg = str(_cleaned(record.msg)) if isinstance(record.msg, str) else record.msg
        return True


def install() -> None:
    """Have gunicorn's own logs go through the filter, in this process and those that it forks."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


def without_query(text: str) -> str:
    """The text with the queries of addresses taken out: a token may be in one."""
    return _QUERY.sub("?…", text)


def without_signatures(text: str) -> str:
    """The text with the signatures of links taken out."""
    return _SIGNATURE.sub(r"\1…", text)


def _cleaned(value: object) -> object:
    return without_signatures(value) if isinstance(value, str) else value


_FILTER = WithoutSignatures()
