"""The end of each command's help: examples and exit codes."""

from collections.abc import Mapping

_ALWAYS = {1: "failed; the line on standard error says why", 2: "wrong usage"}


def usage(*examples: str, exits: Mapping[int, str]) -> str:
    """Return an epilogue for click. `exits` adds exit codes or replaces the texts of 1 (failed) and 2 (wrong usage)."""
    codes = sorted({**_ALWAYS, **exits}.items())
    paragraphs = (
        ("Examples:", [f"  {example}" for example in examples]),
        ("Exit codes:", [f"  {code}  {meaning}" for code, meaning in codes]),
    )
    return "\n\n".join("\n".join(("\b", title, *lines)) for title, lines in paragraphs)
