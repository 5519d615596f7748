"""The client address in the log: X-Forwarded-For counts only from configured proxies."""

from ipaddress import ip_network

import pytest

from app.web.auth.client_address import MAX_PROXIES, Proxies

OURS = Proxies([ip_network("127.0.0.1/32"), ip_network("10.1.0.0/16"), ip_network("::1/128")])
ANYBODY = Proxies(any_peer=True)


def client(proxies: Proxies, peer: str, told: str | None) -> str:
    return proxies.client({"REMOTE_ADDR": peer} | ({} if told is None else {"HTTP_X_FORWARDED_FOR": told}))


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.7", "203.0.113.9"),  # not a proxy
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "192.0.2.1, 198.51.100.7", "198.51.100.7"),  # the client forged the first entry
        ("127.0.0.1", "192.0.2.1, 198.51.100.7, 10.1.2.3", "198.51.100.7"),  # a trusted balancer before the proxy
        ("127.0.0.1", "10.1.2.3,10.1.2.4", "10.1.2.3"),  # no proxy
        ("127.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("127.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "198.51.100.7, unknown", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7, <script>", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7, 10.1.2.3, x", "127.0.0.1"),
        ("", "198.51.100.7", "198.51.100.7"),  # through a Unix socket, which gunicorn trusts
        ("", None, ""),
    ],
)
def test_a_proxy_of_ours_is_believed_and_nobody_else(peer: str, told: str | None, address: str) -> None:
    assert client(OURS, peer, told) == address


def test_where_any_peer_is_believed_nobody_behind_it_is() -> None:
    assert client(ANYBODY, "203.0.113.9", "192.0.2.1, 198.51.100.7") == "198.51.100.7"


def test_without_proxies_nobody_is_believed() -> None:
    assert client(Proxies(), "127.0.0.1", "198.51.100.7") == "127.0.0.1"


def test_a_header_without_end_costs_no_more_than_a_few_steps() -> None:
    assert client(OURS, "127.0.0.1", ",".join(["198.51.100.7", *["10.1.2.3"] * 100 * MAX_PROXIES])) == "10.1.2.3"
