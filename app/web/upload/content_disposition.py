"""Parses `Content-Disposition` of a request or a form's part, including the ways in which clients write file names."""

import re
from dataclasses import dataclass

from werkzeug.http import parse_options_header

_PLAIN = re.compile("filename=", re.IGNORECASE)
_LONE_BACKSLASH = re.compile(r'\\(?!["\\])')


@dataclass(frozen=True, slots=True)
class ContentDisposition:
    """The lower-case kind (`form-data`), the name of a form's part and its file name; empty if absent."""

    kind: str
    name: str
    file_name: str


def parse_content_disposition(header: str) -> ContentDisposition:
    """Parse a header whose bytes were decoded as Latin-1.

    `filename*` (RFC 8187) takes precedence over `filename`; plain values are decoded as UTF-8 if possible.
    """
    # Windows paths come unescaped; werkzeug would treat each backslash as an escape.
    header = _LONE_BACKSLASH.sub(r"\\\\", header)
    kind, options = parse_options_header(header)
    file_name = _as_utf8(options.get("filename", ""))
    if "*" in header:
        # werkzeug lets the last of the two win, so rename the plain one to find `filename*`.
        file_name = parse_options_header(_PLAIN.sub("plain=", header))[1].get("filename", file_name)
    return ContentDisposition(kind.lower(), _as_utf8(options.get("name", "")), file_name)


def _as_utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
