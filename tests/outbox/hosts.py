"""Several hosts on one machine: network namespaces connected by virtual cables, without any other network."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


class NotPermitted(Exception):
    """This machine does not allow network namespaces; the text says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its `address`; `server` is the address of the first host."""

    name: str
    address: str
    server: str

    @property
    def within(self) -> tuple[str, ...]:
        """Return the prefix of a command that runs on this host."""
        return ("ip", "netns", "exec", self.name)


@contextmanager
def hosts(clients: int) -> Iterator[tuple[Host, Sequence[Host]]]:
    """Yield a server and clients, each connected to the server, and remove them at the end. Raises NotPermitted."""
    with ExitStack() as made:
        server = _made(made, f"detections-{os.getpid()}-server")
        found = []
        for number in range(clients):
            # Addresses that are set aside for documents (RFC 5737): no network has them.
            ours, theirs = f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"
            client = _made(made, f"detections-{os.getpid()}-{number}")
            _ip("link", "add", f"to{number}", "netns", server, "type", "veth", "peer", "name", "cable", "netns", client)
            for name, device, address in ((server, f"to{number}", ours), (client, "cable", theirs)):
                _ip("-n", name, "address", "add", f"{address}/30", "dev", device)
                _ip("-n", name, "link", "set", device, "up")
            found.append(Host(client, theirs, ours))
        yield Host(server, found[0].server, found[0].server), found


def _made(made: ExitStack, name: str) -> str:
    _ip("netns", "add", name)
    made.callback(_ip, "netns", "delete", name)
    return name


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise NotPermitted("the command `ip` is not installed") from error
    except subprocess.CalledProcessError as error:
        raise NotPermitted(f"`ip {' '.join(arguments)}`: {error.stderr.strip()}") from error
