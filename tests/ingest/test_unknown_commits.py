"""Commits with unknown outcome, on a PostgreSQL whose connection breaks at COMMIT."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from app.database import Database, WriteTransaction
from app.database.models import Media
from app.errors import Unavailable
from app.ingest import Upload
from app.storage.sweep import SweepReport
from tests.ingest.intake import Intake, open_intake, picture, twin_of

PHOTO = picture("photo")


class ForgetfulServer:
    """Forwards everything to PostgreSQL, but breaks the connection in place of the response to one COMMIT."""

    def __init__(self, url: str) -> None:
        self._server = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self.armed = threading.Event()
        self._run(self._accept)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        ours = self._server.set(host=host, port=port, query={"sslmode": "disable", "gssencmode": "disable"})
        return ours.render_as_string(hide_password=False)

    def stop(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(30)

    def _run(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                self._sockets += [client, server]
                committed = threading.Event()
                self._run(self._forward, client, server, committed)
                self._run(self._answer, server, client, committed)

    def _connect(self) -> socket.socket:
        folder = self._server.query.get("host")
        port = self._server.port or 5432
        if isinstance(folder, str) and folder.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{folder}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((self._server.host or "127.0.0.1", port))

    def _forward(self, client: socket.socket, server: socket.socket, committed: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if b"COMMIT\0" in data and self.armed.is_set():
                    committed.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, committed: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if committed.is_set():
                    self.armed.clear()
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def forgetful(postgres_url: str) -> Iterator[ForgetfulServer]:
    server = ForgetfulServer(postgres_url)
    yield server
    server.stop()


@pytest.fixture
def intake(tmp_path: Path, forgetful: ForgetfulServer) -> Iterator[Intake]:
    with closing(Database(forgetful.url)) as database:
        yield open_intake(tmp_path / "media", database)


def test_a_commit_whose_answer_was_lost_is_looked_up_and_is_a_success(
    intake: Intake, forgetful: ForgetfulServer
) -> None:
    intake.rows()
    forgetful.armed.set()
    receipt = intake.send(PHOTO)
    assert not forgetful.armed.is_set()
    assert not receipt.duplicate
    intake.assert_sound()
    intake.sweep.run()
    assert len(intake.rows()) == 1
    assert len(intake.stored()) == 1
    assert intake.leftovers() == []
    intake.assert_sound()


def test_a_replacement_whose_commit_went_unanswered_is_looked_up_too(
    intake: Intake, forgetful: ForgetfulServer
) -> None:
    intake.orphan(twin_of(PHOTO))
    intake.rows()
    forgetful.armed.set()
    assert not intake.send(PHOTO).duplicate
    assert intake.final(PHOTO).read_bytes() == PHOTO
    intake.sweep.run()
    assert intake.leftovers() == []
    intake.assert_sound()


def break_at_commit(connection: WriteTransaction, _media: Media) -> None:
    """Have the server close this connection during COMMIT, without committing."""
    for statement in (
        (
            "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        ),
        (
            "CREATE CONSTRAINT TRIGGER end_it AFTER INSERT ON outbox_circuit DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION end_it()"
        ),
        "INSERT INTO outbox_circuit (endpoint, state, failures) VALUES ('endpoint', 'closed', 0)",
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("before", ["nothing", "orphan"])
def test_a_commit_that_broke_keeps_the_file_with_its_proof_until_a_sweep_can_tell(before: str, intake: Intake) -> None:
    if before == "orphan":
        intake.orphan(twin_of(PHOTO))
    with pytest.raises(Unavailable):
        intake.ingest.run(Upload("photo.jpg", "ada", [PHOTO]), break_at_commit)
    assert intake.rows() == []
    assert intake.final(PHOTO).read_bytes() == PHOTO
    [proof] = intake.leftovers()
    assert proof.samefile(intake.final(PHOTO))
    assert intake.sweep.run() == SweepReport(leftovers=1, orphans=1)
    assert intake.stored() == set()
    assert intake.leftovers() == []
    assert not intake.send(PHOTO).duplicate
    intake.assert_sound()
