"""PgBouncer before a PostgreSQL server: Debian's package, on a free port, in a folder that only this process knows."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.eventually import eventually
from tests.servers.ports import free_port

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
START_SECONDS = 20

_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 400
logfile = {folder}/pgbouncer.log
{more}
"""


@contextmanager
def pgbouncer(server_url: str, mode: str, *, size: int = 20, more: str = "") -> Iterator[str]:
    """PgBouncer before the server of a URL; gives the same URL with PgBouncer in the server's place.

    `mode` is session or transaction, `size` how many sessions of the server it has for each database, `more` further
    lines of its settings.
    """
    assert PGBOUNCER is not None
    url = make_url(server_url)
    folder = Path(tempfile.mkdtemp(prefix="detections-pgbouncer-"))
    folder.chmod(0o777)  # a PgBouncer that root starts runs as another user
    host, listen_port = str(url.query.get("host", url.host)), free_port()
    configuration = _CONFIGURATION.format(
        host=host,
        port=url.port or 5432,
        user=url.username,
        mode=mode,
        size=size,
        folder=folder,
        listen_port=listen_port,
        more=more,
    )
    (folder / "pgbouncer.ini").write_text(configuration)
    # It does not run as root, and the server's socket lies in a folder of its owner's.
    user = ["-u", Path(host).owner() if host.startswith("/") else "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [PGBOUNCER, "-q", *user, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await(listen_port, process)
        pooled = url.set(host="127.0.0.1", port=listen_port, query={})
        yield pooled.render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    def listens() -> bool:
        assert process.poll() is None, "PgBouncer ended at its start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    eventually(listens, "PgBouncer to listen", seconds=START_SECONDS)
