"""The end of every `--help`: examples that can be copied, and what the exit codes mean."""

from collections.abc import Mapping

_ALWAYS = {1: "something failed; the one line on standard error says what", 2: "wrong usage"}


def usage(*examples: str, exits: Mapping[int, str]) -> str:
    """An epilogue for click. `exits` adds to 1 (failed) and 2 (wrong usage), or says more about them."""
    codes = sorted({**_ALWAYS, **exits}.items())
    paragraphs = (
        ("Examples:", [f"  {example}" for example in examples]),
        ("Exit codes:", [f"  {code}  {meaning}" for code, meaning in codes]),
    )
    return "\n\n".join("\n".join(("\b", title, *lines)) for title, lines in paragraphs)
