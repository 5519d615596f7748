"""`Content-Disposition`, in a request's head or in a part of a form, and file names as clients write them there."""

import re
from dataclasses import dataclass

from werkzeug.http import parse_options_header

_PLAIN = re.compile("filename=", re.IGNORECASE)
_LONE_BACKSLASH = re.compile(r'\\(?!["\\])')


@dataclass(frozen=True, slots=True)
class Disposition:
    """The kind in lower case, as `form-data`; the name of a form's part; the name of its file. Without one: empty."""

    kind: str
    name: str
    file_name: str


def parse_disposition(header: str) -> Disposition:
    """Take a header apart whose bytes were decoded as Latin-1.

    `filename*` (RFC 8187) is preferred over `filename` wherever it stands; plain values are read as UTF-8 if they can
    be.
    """
    # Paths of Windows come unescaped; werkzeug would take each backslash for an escape.
    header = _LONE_BACKSLASH.sub(r"\\\\", header)
    kind, options = parse_options_header(header)
    file_name = _as_utf8(options.get("filename", ""))
    if "*" in header:
        # werkzeug lets the last of the two win, so the plain one is renamed to find whether there is the other.
        file_name = parse_options_header(_PLAIN.sub("plain=", header))[1].get("filename", file_name)
    return Disposition(kind.lower(), _as_utf8(options.get("name", "")), file_name)


def _as_utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
