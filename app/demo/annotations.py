"""The reference annotations service as a process: `python -m app.demo.annotations --database F --port P`.

The secret comes from the environment, ANNOTATIONS_SECRET, so that it shows in no list of processes; so does
ANNOTATIONS_TOKEN, a static token that is accepted beside JWTs. It runs until SIGTERM or SIGINT.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from app.demo.reference_app import create_annotations_app
from app.demo.reference_service import ReferenceService

__all__ = ["ReferenceService", "create_annotations_app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end. Returns 0 then, 1 where the port is taken, 2 where the secret is missing."""
    options = _parser().parse_args(arguments)
    secret = os.environ.get("ANNOTATIONS_SECRET")
    if not secret:
        print("ANNOTATIONS_SECRET is not set: the secret with which tokens are signed", file=sys.stderr)
        return 2
    told_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_end.set())
    try:
        service = ReferenceService(
            options.database,
            secret,
            port=options.port,
            static_token=os.environ.get("ANNOTATIONS_TOKEN") or None,
            identity_claim=options.identity_claim,
            audience=options.audience,
            issuer=options.issuer,
            clock_offset=options.clock_offset,
        )
    except OSError as error:
        print(f"port {options.port} of 127.0.0.1 cannot be had: {error.strerror}", file=sys.stderr)
        return 1
    with service:
        print(f"listening on {service.url}", flush=True)
        told_to_end.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.demo.annotations", description="Reference annotations service")
    parser.add_argument("--database", type=Path, required=True, help="SQLite file, made where it is missing")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--identity-claim", default="sub", help="claim of the JWT that holds the identity")
    parser.add_argument("--audience", help="audience that a JWT must name")
    parser.add_argument("--issuer", help="issuer that a JWT must name")
    parser.add_argument("--clock-offset", type=float, default=0.0, help="seconds by which its clock is wrong")
    return parser


if __name__ == "__main__":
    sys.exit(main())
