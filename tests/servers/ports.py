"""Ports for servers that must be told theirs.

A port that the kernel picks is free only until it is picked again, as the port of another test's server or of anybody's
outgoing connection. These lie below the range from which the kernel picks, and no process asks for the same one twice.
"""

import random
import socket
from pathlib import Path

_LOWEST = 20_000
_EPHEMERAL_LOWEST = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_candidates = list(range(_LOWEST, _EPHEMERAL_LOWEST)) or list(range(1024, _LOWEST))
random.SystemRandom().shuffle(_candidates)


def free_port() -> int:
    """Return a port of loopback at which nothing listens, and that the kernel gives to nobody."""
    while True:
        port = _candidates.pop()
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
