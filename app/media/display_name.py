"""The name a client gave its file, made safe to show: never a path, never longer or stranger than a name.

It is stored and shown only. No file of ours is ever called by it.
"""

import re
import unicodedata

from app.errors import MalformedUpload

MAX_LENGTH = 255
_LONGEST_EXTENSION = 16
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks, embeddings, overrides and isolates of the bidirectional algorithm: they make `gpj.exe` read as `exe.jpg`.
# Joiners (U+200C, U+200D) stay: words and emoji need them.
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SEPARATOR = re.compile(r"[/\\]")


def clean_name(raw: str) -> str:
    """The last component of `raw` in NFC, without control, surrogate and bidirectional characters, at most 255 long.

    A name that must be cut keeps its extension. Raises MalformedUpload if nothing is left.
    """
    last = _SEPARATOR.split(raw)[-1]
    visible = "".join(character for character in last if _is_visible(character))
    # Only now: what was taken out may have kept two characters from composing.
    name = unicodedata.normalize("NFC", visible).strip()
    if name in ("", ".", ".."):
        raise MalformedUpload("the file has no usable name")
    return name if len(name) <= MAX_LENGTH else _cut(name)


def _is_visible(character: str) -> bool:
    return character not in _BIDIRECTIONAL and unicodedata.category(character) not in _INVISIBLE_CATEGORIES


def _cut(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _LONGEST_EXTENSION:
        return name[:MAX_LENGTH].rstrip()
    return stem[: MAX_LENGTH - len(dot + extension)] + dot + extension
