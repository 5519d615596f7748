"""The reference annotations service as a process: `python -m app.demo.annotations --database F --port P`.

The secret comes from the environment, ANNOTATIONS_SECRET, so that it shows in no list of processes; so does
ANNOTATIONS_TOKEN, a static token that is accepted beside JWTs. It runs until SIGTERM or SIGINT.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from werkzeug.serving import make_server

from app.demo.reference_app import create_annotations_app


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end. Returns 0 then, 2 where the secret is missing; exits with 1 where the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m app.demo.annotations", description="Reference annotations service")
    parser.add_argument("--database", type=Path, required=True, help="SQLite file, made where it is missing")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    options = parser.parse_args(arguments)
    secret = os.environ.get("ANNOTATIONS_SECRET")
    if not secret:
        print("ANNOTATIONS_SECRET is not set: the secret with which tokens are signed", file=sys.stderr)
        return 2
    app = create_annotations_app(options.database, secret, static_token=os.environ.get("ANNOTATIONS_TOKEN") or None)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the request log tells more
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    server = make_server("127.0.0.1", options.port, app, threaded=True)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
