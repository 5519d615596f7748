"""How large, how many, and for how long resumable uploads may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes of one file, unfinished uploads of one user, and seconds: of life without a request, until another request
    has taken over, between looks for one, and between syncs while a part comes."""

    max_bytes: int
    per_user: int
    lifetime: float
    takeover: float = 4.0
    poll: float = 1.0
    checkpoint: float = 5.0
