"""How large, how many, and how patient resumable uploads may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes of one file, unfinished uploads of one user, and seconds: until another request has taken over, and between
    syncs while a part comes."""

    max_bytes: int
    per_user: int
    takeover: float = 4.0
    checkpoint: float = 5.0
