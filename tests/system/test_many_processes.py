"""Several server processes, a dispatcher beside them and flushes in between, all at once on one database."""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import fork_server
from tests.long import postgres_first
from tests.paths import ROOT
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import SECRET, Service, surroundings

UPLOADS = 60


@postgres_first
def test_processes_that_share_a_database_keep_the_promise_and_never_find_it_locked(
    tmp_path: Path, database_url: str
) -> None:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as annotations:
        service = Service(tmp_path, database_url, annotations.url, DETECTION="off")
        beside = None
        try:
            service.start("--workers", "3")
            with (tmp_path / "beside.log").open("wb") as log:
                beside = fork_server.Popen(
                    [sys.executable, "-m", "flask", "outbox", "run"],
                    cwd=ROOT,
                    env=surroundings() | service.environment,
                    stderr=log,
                )
            uploads = Uploads()
            with ThreadPoolExecutor(6) as clients:
                sent = [clients.submit(uploads.send, service, "/media", photo(number)) for number in range(UPLOADS)]
                flushed = [clients.submit(service.flask, "outbox", "flush", "--json") for _ in range(3)]
            for one in sent:
                one.result()
            assert [json.loads(one.result().stdout)["parked"] for one in flushed] == [0, 0, 0]
            assert uploads.refused == []
            assert uploads.cut_off == 0
            settle(service)
            assert_kept(service, annotations, [uploads])
            beside.send_signal(signal.SIGTERM)
            assert beside.wait(30) == 0
            for name in ("gunicorn.log", "beside.log"):
                assert "database is locked" not in (tmp_path / name).read_text()
        finally:
            if beside is not None:
                beside.kill()
                beside.wait()
            service.stop()
            service.kill()
