"""File names as clients write them into `Content-Disposition`, in a request's head or in a part of a form."""

import re

from werkzeug.http import parse_options_header

_PLAIN = re.compile("filename=", re.IGNORECASE)
_LONE_BACKSLASH = re.compile(r'\\(?!["\\])')


def file_name(disposition: str) -> str | None:
    """The file name in a header whose bytes were decoded as Latin-1; None where it has none.

    `filename*` (RFC 8187) is preferred over `filename` wherever it stands; that one is read as UTF-8 if it can be.
    """
    # Paths of Windows come unescaped; werkzeug would take each backslash for an escape.
    disposition = _LONE_BACKSLASH.sub(r"\\\\", disposition)
    if "*" in disposition:
        # werkzeug lets the last of the two win, so the plain one is renamed to find whether there is the other.
        _, extended = parse_options_header(_PLAIN.sub("plain=", disposition))
        if "filename" in extended:
            return extended["filename"]
    _, options = parse_options_header(disposition)
    plain = options.get("filename")
    return plain if plain is None else _as_utf8(plain)


def _as_utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
