"""tus-js-client, unmodified, through a link that is cut every few mebibytes; with parts one by one and four at once.

package-lock.json beside this file pins it; `npm ci` installs it at the first run.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.resumable_clients.packages import HERE, INSTALL_SECONDS, installed_node
from tests.servers.cutting_proxy import CuttingProxy
from tests.system.service import Service, token
from tests.system.test_resumable_uploads import MIB, assert_whole, clip, port_of

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 60)


@pytest.fixture(scope="module")
def node() -> str:
    """The program that runs the client, which is installed."""
    return installed_node()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", None, DETECTION="off")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.mark.parametrize("parallel", [1, 4])
def test_tus_js_client_survives_a_link_that_is_cut(service: Service, node: str, tmp_path: Path, parallel: int) -> None:
    content = clip(12 * MIB)
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    with CuttingProxy(port_of(service.url), [2 * MIB * number for number in range(1, 5)]) as proxy:
        command = [node, "upload.mjs", f"{proxy.url}/uploads", token(), str(file), str(parallel)]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert proxy.cuts == []
    state = service.request("GET", done.stdout.strip().removeprefix(proxy.url)).json()
    assert state["state"] == "complete"
    assert state["length"] == len(content)
    assert_whole(service, content)
