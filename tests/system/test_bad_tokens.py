"""Row 9 of docs/reliability.md over the wire: every bad token is refused at once, whatever stands in its header.

A header beyond 16 KiB, and so a token of 100 kB, never reaches the application: gunicorn answers 431. To let it through
would mean to buffer such heads in the server's only main loop for whoever sends them, for no token that anybody has.
"""

import socket

from tests.api.test_tokens import BAD
from tests.system.service import Service, token
from tests.web.raw_client import RawClient

LONGEST_FIELD = 16_380  # gunicorn.conf.py's limit_request_field_size


def ask(service: Service, authorization: str) -> int:
    """The status of an upload whose head has this header, and whose body never comes."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    header = b"Authorization: " + authorization.encode("utf-8", "surrogatepass") + b"\r\n"
    with RawClient(socket.create_connection((host, int(port)), timeout=10)) as client:
        client.send(b"POST /media?name=a.jpg HTTP/1.1\r\nHost: test\r\n" + header + b"Content-Length: 1000000\r\n\r\n")
        status = int(client.line().split()[1])
        client.everything()
    return status


def test_each_bad_token_is_refused_over_the_wire(service: Service) -> None:
    authorizations = {name: make() for name, make in BAD.items()}
    too_long = {name for name, value in authorizations.items() if len(value) > LONGEST_FIELD}
    assert len(authorizations) - len(too_long) >= 40
    assert {name: ask(service, value) for name, value in authorizations.items()} == {
        name: 431 if name in too_long else 401 for name in authorizations
    }
    assert service.leftovers() == []
    log = service.log.read_text(errors="replace")
    assert [value for name, value in authorizations.items() if len(value) > 40 and value[-30:] in log] == []
    assert service.request("GET", "/media").status_code == 200


def test_a_token_with_many_claims_is_taken(service: Service) -> None:
    many = token(groups=["g" * 100] * 80)
    assert 10_000 < len(many) < LONGEST_FIELD
    assert service.request("GET", "/media", headers={"Authorization": f"Bearer {many}"}).status_code == 200
