"""Reads the revision of the running code from the checkout's git folder, without running git."""

from functools import lru_cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
UNKNOWN = "unknown"


@lru_cache(1)
def of_this_code() -> str:
    """Return the commit of this checkout at the first call; UNKNOWN without a checkout."""
    return of(CHECKOUT)


def of(checkout: Path) -> str:
    """Return the commit that is checked out in a folder; UNKNOWN if it cannot be read."""
    try:
        git = checkout / ".git"
        if git.is_file():  # a worktree
            git = checkout / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = git / common.read_text().strip() if common.is_file() else git
        loose = [folder / name for folder in (git, shared) if (folder / name).is_file()]
        if loose:
            return loose[0].read_text().strip()
        packed = (line.split() for line in (shared / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [name]), UNKNOWN)
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
