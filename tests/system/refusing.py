"""A running process whose calls of one kind fail, as strace injects it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.eventually import eventually
from tests.system.service import Service


@contextmanager
def refusing(call: str, process: int, log: Path, error: str = "EPERM") -> Iterator[None]:
    """Have a call of a running process fail while the block runs."""
    injected = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    command = ["strace", "-q", "-f", "-p", str(process), "-o", str(log), *injected]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        try:
            eventually(lambda: f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{process}/status").read_text(), seconds=30)
            yield
        finally:
            tracer.terminate()


def worker_of(service: Service) -> int:
    """The first worker of a service."""
    assert service.process is not None
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    return int(children.split()[0])


def readiness(service: Service, wanted: int) -> str:
    """What `/readyz` says, once it answers with that status."""

    def told() -> str:
        answer = service.request("GET", "/readyz")
        return answer.text if answer.status_code == wanted else ""

    return eventually(told, f"{wanted} from /readyz")
