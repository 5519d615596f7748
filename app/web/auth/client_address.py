"""Whose address a request came from, where proxies stand between: a proxy's word counts only if it is one of ours.

Which those are gunicorn's `forwarded_allow_ips` says, as for the scheme. X-Forwarded-For is read from its end, where
the nearest proxy has written: what a client wrote there before it was passed on is never reached.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from wsgiref.types import WSGIEnvironment

from flask import Flask

EXTENSION = "detections-proxies"
MAX_PROXIES = 10

Network = IPv4Network | IPv6Network


class Proxies:
    """The proxies that are believed; with `any_peer` whoever connects, but nobody further away."""

    def __init__(self, networks: Iterable[Network] = (), *, any_peer: bool = False) -> None:
        self._networks: Sequence[Network] = tuple(networks)
        self._any_peer = any_peer

    def client(self, environ: WSGIEnvironment) -> str:
        """The address of the request's client, as far as believed proxies tell it; empty for a Unix socket's own."""
        address: str = environ.get("REMOTE_ADDR", "")
        told = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")[-MAX_PROXIES:]
        believed = self._any_peer or not address or self._is_ours(address)
        while told and believed:
            nearer = _plain(told.pop())
            if nearer is None:
                break
            address, believed = nearer, self._is_ours(nearer)
        return address

    def _is_ours(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def install(app: Flask, proxies: Proxies) -> None:
    """Have the application believe these proxies."""
    app.extensions[EXTENSION] = proxies


def _plain(text: str) -> str | None:
    """An address without brackets and port; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
