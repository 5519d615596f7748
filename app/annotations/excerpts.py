"""Another's words, cleaned before they are kept."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}", re.ASCII)


def presentable(text: str, secrets: Iterable[str], limit: int) -> str:
    """Its first `limit` characters, on one line, printable, without the secrets or anything like a JSON Web Token."""
    for secret in secrets:
        for spelling in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe="")):
            text = text.replace(spelling, "[token]")
    text = JSON_WEB_TOKEN.sub("[token]", text)[: limit * 8]
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())[:limit]
