"""Cleans the client's file name for display: never a path, bounded in length, without deceptive characters.

The name is stored and shown only; no stored file is named by it.
"""

import re
import unicodedata

from app.errors import MalformedUpload

MAX_LENGTH = 255
_MAX_EXTENSION_LENGTH = 16
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Bidirectional marks, embeddings, overrides and isolates make `gpj.exe` read as `exe.jpg`.
# Joiners (U+200C, U+200D) stay, because words and emoji need them.
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SEPARATOR = re.compile(r"[/\\]")


def clean_name(raw: str) -> str:
    """Return the last path component in NFC, without control, surrogate and bidirectional characters.

    The result has at most 255 characters; a longer name is cut before its extension. Raises MalformedUpload if nothing
    is left.
    """
    last = _SEPARATOR.split(raw)[-1]
    visible = "".join(character for character in last if _is_visible(character))
    # Normalize after the removal, because removed characters may have separated composable ones.
    name = unicodedata.normalize("NFC", visible).strip()
    if name in ("", ".", ".."):
        raise MalformedUpload("the file has no usable name")
    return name if len(name) <= MAX_LENGTH else _cut(name)


def _is_visible(character: str) -> bool:
    return character not in _BIDIRECTIONAL and unicodedata.category(character) not in _INVISIBLE_CATEGORIES


def _cut(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _MAX_EXTENSION_LENGTH:
        return name[:MAX_LENGTH].rstrip()
    return stem[: MAX_LENGTH - len(dot + extension)] + dot + extension
