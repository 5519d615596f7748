"""How texts of the annotations service are cleaned before they are stored."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}", re.ASCII)


def presentable(text: str, secrets: Iterable[str], limit: int) -> str:
    """Return the first `limit` characters of a text on one line, printable, without secrets and JSON Web Tokens."""
    if not text:
        return ""
    for secret in secrets:
        for spelling in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe="")):
            text = text.replace(spelling, "[token]")
    text = JSON_WEB_TOKEN.sub("[token]", text)[: limit * 8]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:limit]
