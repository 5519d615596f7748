"""Requests made from the API's own description, as it is published: the service answers each as it is described there.

schemathesis reads `/openapi.json` from the running service, so whatever is described is tried. SCHEMATHESIS_EXAMPLES
sets how many requests it makes up for each operation, besides the fixed ones for each parameter and schema; 1000 is
the long form.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.api_description.conformance import Document
from tests.api_description.description import METHODS
from tests.paths import PHOTOS
from tests.system.service import Service, surroundings, token

ASTRONAUT = PHOTOS / "astronaut.jpg"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "4"))
MAX_GROWTH = 64 << 20
SEED = 20_240_229

# 503 and 507 are described answers, not failures. What fits the description is taken, but for what it cannot say: which
# media there are, what a picture is, which conditions and signatures are good, and that a cursor belongs to one state.
CONFIGURATION = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "507"]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "503", "507"]

[[operations]]
include-name = "GET /media/{media_id}/content"
checks.positive_data_acceptance.expected-statuses = ["2xx", "304", "401", "404", "412", "416", "503"]

[[operations]]
include-name = ["POST /detect", "POST /media"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "409", "413", "415", "422", "503", "507"]

# tus answers a wrong or missing version with 412, and any method is another one where X-HTTP-Method-Override says so.
[[operations]]
include-name = ["POST /uploads", "PATCH /uploads/{upload_id}", "DELETE /uploads/{upload_id}"]
checks.missing_required_header.expected-statuses = [400, 401, 404, 412]
checks.negative_data_rejection.expected-statuses = ["4xx", "503", "507"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "4xx", "503", "507"]

[[operations]]
include-path = "/uploads/{upload_id}"
checks.unsupported_method.enabled = false

[[operations]]
include-name = "GET /outbox/messages"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400"]
"""

# How the bytes of a part are sent.
EXTENSIONS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""

# In OpenAPI 3.1 a stream of events can be described as a text only, and schemathesis takes the schema for each event's.
OF_EVENTS = """
[[operations]]
include-path = {path}
checks.response_schema_conformance.enabled = false
"""


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, None, UPLOAD_IDLE_TIMEOUT_SECONDS="2", SYNC_WAIT_SECONDS="5")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def worker(service: Service) -> Any:
    assert service.process is not None
    [worker] = psutil.Process(service.process.pid).children()
    return worker


def configuration(document: dict[str, Any]) -> str:
    """schemathesis.toml for what the service describes."""
    resolved = Document(document).resolved
    streams = {
        path
        for path, item in document["paths"].items()
        for operation in METHODS & item.keys()
        for response in item[operation]["responses"].values()
        if "text/event-stream" in resolved(response).get("content", {})
    }
    return CONFIGURATION + "".join(OF_EVENTS.format(path=json.dumps(path)) for path in sorted(streams))


def run_schemathesis(service: Service, folder: Path) -> subprocess.CompletedProcess[str]:
    settings = folder / "schemathesis.toml"
    settings.write_text(configuration(service.request("GET", "/openapi.json").json()))
    (folder / "extensions.py").write_text(EXTENSIONS)
    program = ["-m", "schemathesis.cli", "--config-file", str(settings), "run", f"{service.url}/openapi.json"]
    how = ["--continue-on-failure", "--request-timeout", "30", "--suppress-health-check", "all"]
    much = ["--seed", str(SEED), "--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color"]
    bearer = f"Authorization: Bearer {token('schemathesis', roles=['admin'])}"
    return subprocess.run(
        [sys.executable, *program, *how, *much, "-H", bearer],
        cwd=folder,
        env=surroundings() | {"XDG_RUNTIME_DIR": str(folder), "SCHEMATHESIS_HOOKS": "extensions"},
        capture_output=True,
        text=True,
        timeout=100 + EXAMPLES * 20,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(120 + EXAMPLES * 20)
def test_what_is_described_is_what_is_answered(service: Service, tmp_path: Path) -> None:
    service.detected(ASTRONAUT)  # the media that the description's examples name
    before = worker(service)
    memory = before.memory_info().rss

    run = run_schemathesis(service, tmp_path)

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    selected = re.search(r"(\d+) selected / (\d+) total", run.stdout)
    assert selected is not None
    assert selected[1] == selected[2]
    assert worker(service) == before
    assert before.memory_info().rss - memory < MAX_GROWTH
    log = service.log.read_text(errors="replace")
    assert [line for line in log.splitlines() if "unexpected_error" in line or "Traceback" in line] == []
    answered = {int(status) for status in re.findall(r'"status": ?(\d+)', log)}
    assert answered >= {200, 400, 401, 404, 405, 415}, "most requests never came as far as the views"
