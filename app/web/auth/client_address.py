"""Determines a request's client address behind proxies. Only configured proxies are trusted.

gunicorn's `forwarded_allow_ips` names them, as for the scheme. X-Forwarded-For is read from its end, where the nearest
proxy writes, so that entries forged by the client are never reached.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from wsgiref.types import WSGIEnvironment

from flask import Flask

EXTENSION = "detections-proxies"
MAX_PROXIES = 10

Network = IPv4Network | IPv6Network


class Proxies:
    """The trusted proxies. With `any_peer` the connecting peer is trusted, but nobody beyond it."""

    def __init__(self, networks: Iterable[Network] = (), *, any_peer: bool = False) -> None:
        self._networks: Sequence[Network] = tuple(networks)
        self._any_peer = any_peer

    def client(self, environ: WSGIEnvironment) -> str:
        """Return the client's address as far as trusted proxies tell it; empty for a Unix socket's own."""
        address: str = environ.get("REMOTE_ADDR", "")
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")[-MAX_PROXIES:]
        is_trusted = self._any_peer or not address or self._is_proxy(address)
        while forwarded and is_trusted:
            nearer = _plain(forwarded.pop())
            if nearer is None:
                break
            address, is_trusted = nearer, self._is_proxy(nearer)
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def install(app: Flask, proxies: Proxies) -> None:
    """Set the proxies that the application trusts."""
    app.extensions[EXTENSION] = proxies


def _plain(text: str) -> str | None:
    """Return an address without brackets and port, or None if it is not an address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
