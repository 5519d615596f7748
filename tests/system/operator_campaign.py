"""Rows 42 and 43 of docs/reliability.md with their full figures, and keys that change, under constant load.

    python -m tests.system.operator_campaign [--only log|reload|keys] [--small]

Each part runs the service under gunicorn while four clients upload, does to it what an operator or a machine does, and
checks that no upload was refused and that what was acknowledged is kept. Prints a line for each; exit 1 if one does not
hold. `--small` takes two minutes.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.detection.inference.model_file import BUILT_IN_MODEL
from tests.conftest import migrate
from tests.eventually import eventually
from tests.reference.service import ReferenceService
from tests.servers.ports import free_port
from tests.system.load import Load
from tests.system.promise import assert_kept, settle
from tests.system.refusing import readiness
from tests.system.service import SECRET, Service, token

Part = Callable[[ExitStack, Path, float], str]
LOGS = {
    # The first lines are read, since they say where the service listens; then the pipe is left full, or has no reader.
    "nobody reads": 'exec "$@" > >(for n in 1 2 3 4 5; do read -r l; echo "$l" >> LOG; done; exec sleep 9999) 2>&1',
    "no reader": 'exec "$@" > >(sed -u 5q >> LOG) 2>&1',
    "closed": 'echo "Listening at: http://127.0.0.1:PORT" >> LOG; exec "$@" -b 127.0.0.1:PORT >&- 2>&-',
    "disk full": 'echo "Listening at: http://127.0.0.1:PORT" >> LOG; exec "$@" -b 127.0.0.1:PORT > /dev/full 2>&1',
}


def service_in(stack: ExitStack, folder: Path, **settings: str) -> tuple[Service, ReferenceService]:
    """A service on a new database with an annotations service of its own; neither outlives `stack`."""
    folder.mkdir()
    migrate(f"sqlite:///{folder / 'd.db'}")
    annotations = stack.enter_context(ReferenceService(folder / "annotations.db", SECRET))
    settings = {"DETECTION": "off", "ANNOTATIONS_TOKEN": token("detections")} | settings
    service = Service(folder, f"sqlite:///{folder / 'd.db'}", annotations.url, **settings)
    if "JWT_PUBLIC_KEY_FILE" in settings:
        del service.environment["JWT_SECRET_KEY"]
    stack.callback(service.kill)
    return service, annotations


def check(service: Service, annotations: ReferenceService, load: Load) -> None:
    """No upload was refused or cut off, and what was acknowledged is kept and told."""
    assert not load.refused, load.refused
    assert not sum(uploads.cut_off for uploads in load.uploads)
    settle(service)
    assert_kept(service, annotations, load.uploads)


def log(stack: ExitStack, folder: Path, seconds: float) -> str:
    """Standard error can take nothing, for a minute and in four ways."""
    figures = []
    for number, (name, shell) in enumerate(LOGS.items()):
        service, annotations = service_in(stack, folder / str(number), LOG_LEVEL="debug")
        script = shell.replace("LOG", str(service.log)).replace("PORT", str(free_port()))
        load = Load()
        service.start(wrapper=("bash", "-c", script, "bash"))
        with load.on(service):
            eventually(lambda: lines_lost(service), "a lost line: else the log is not dead", seconds=90)  # noqa: B023 (called here)
            time.sleep(seconds)
        readiness(service, 200)
        lost = lines_lost(service)
        check(service, annotations, load)
        figures.append(f"{name}: {lost:.0f} lines lost, {load.figure()}")
        service.kill()
    return "; ".join(figures)


def reload(stack: ExitStack, folder: Path, seconds: float) -> str:
    """HUP with each file that a start reads missing, empty and garbage; then with all of them well."""
    folder.mkdir(exist_ok=True)
    model, labels, key = folder / "model.onnx", folder / "labels.txt", folder / "key.pem"
    shutil.copy(BUILT_IN_MODEL, model)
    labels.write_text("\n".join(f"class {number}" for number in range(80)))
    private, public = key_pair()
    key.write_bytes(public)
    files = {"DETECTOR_MODEL": str(model), "DETECTOR_LABELS": str(labels), "JWT_PUBLIC_KEY_FILE": str(key)}
    service, annotations = service_in(stack, folder / "service", **files, JWT_ALGORITHM="RS256", DETECTION="embedded")
    service.token = partial(signed, key=private)
    service.start()
    load, refusals = Load(), 0
    with load.on(service):
        for file in (model, labels, key):
            kept = file.read_bytes()
            for content in (None, b"", b"garbage"):
                file.unlink()
                if content is not None:
                    file.write_bytes(content)
                refusals += 1
                hang_up(service)
                eventually(lambda wanted=refusals: said(service, "Not reloaded") == wanted, "a refusal", seconds=90)  # type: ignore[misc]
                file.write_bytes(kept)
                time.sleep(seconds / 20)
        reloaded(service)
        time.sleep(seconds / 4)
    assert "Traceback" not in service.log.read_text()
    check(service, annotations, load)
    return f"{refusals} reloads refused with one line each, one done, {load.figure()}"


def keys(stack: ExitStack, folder: Path, seconds: float) -> str:
    """A new PEM beside the one of before, by HUP; then two secrets, by the documented steps with restarts."""
    return f"PEM: {_keys_by_reload(stack, folder, seconds)}; secrets: {_keys_by_restart(stack, folder, seconds)}"


def _keys_by_reload(stack: ExitStack, folder: Path, seconds: float) -> str:
    folder.mkdir(exist_ok=True)
    (before, before_pem), (after, after_pem) = key_pair(), key_pair()
    file = folder / "keys.pem"
    file.write_bytes(before_pem)
    service, annotations = service_in(stack, folder / "pem", JWT_PUBLIC_KEY_FILE=str(file), JWT_ALGORITHM="RS256")
    service.token = partial(signed, key=before)
    service.start()
    load = Load()
    with load.on(service):
        for pem, key in ((before_pem + after_pem, after), (after_pem, after)):
            time.sleep(seconds / 4)
            file.write_bytes(pem)
            reloaded(service)
            service.token = partial(signed, key=key)
        time.sleep(seconds / 4)
    check(service, annotations, load)
    return load.figure()


def _keys_by_restart(stack: ExitStack, folder: Path, seconds: float) -> str:
    new = "another secret that the suite has made up lately"
    service, annotations = service_in(stack, folder / "secret")
    service.start()
    first = service.upload("/media", b"GIF89a" + bytes(64), name="a.gif")
    link = service.request("POST", f"/media/{first.json()['media']['id']}/link").json()["url"]
    load = Load()
    changes = (
        {"JWT_SECRET_KEY": SECRET, "JWT_SECRET_KEY_PREVIOUS": new},
        {"JWT_SECRET_KEY": new, "JWT_SECRET_KEY_PREVIOUS": SECRET},
    )
    for number, settings in enumerate(changes):
        service.stop()
        service.environment |= settings
        service.start()
        for key in (SECRET, new):
            service.token = partial(signed, key=key, algorithm="HS256")
            with load.on(service, first=100_000 * (2 * number + len(key))):
                time.sleep(seconds / 4)
            answer = requests.get(urljoin(service.url, link), timeout=30)
            assert answer.status_code == 200, "a signed link broke"
    check(service, annotations, load)
    return load.figure()


def key_pair() -> tuple[str, bytes]:
    """A private key and its public one, both as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(user: str, *, key: str, algorithm: str = "RS256") -> str:
    """A client's token, signed with that key."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + 3600}, key, algorithm)


def hang_up(service: Service) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)


def reloaded(service: Service) -> None:
    """Reload, and wait until every worker of before has ended."""
    before = service.workers()
    hang_up(service)
    eventually(lambda: bool(service.workers()) and service.workers().isdisjoint(before), "other workers", seconds=90)


def lines_lost(service: Service) -> float:
    metrics = service.request("GET", "/metrics").text
    [lost] = re.findall(r"^detections_log_lines_lost_total ([0-9.]+)$", metrics, re.MULTILINE)
    return float(lost)


def said(service: Service, text: str) -> int:
    return service.log.read_text(errors="replace").count(text)


PARTS: dict[str, Part] = {part.__name__: part for part in (log, reload, keys)}


def holds(part: Part, seconds: float) -> bool:
    """Run a part, and print what came of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            print(f"{part.__name__}: holds: {part(stack, folder, seconds)}", flush=True)
        except (AssertionError, requests.RequestException, subprocess.SubprocessError) as error:
            print(f"{part.__name__}: does not hold: {error}", flush=True)
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where a part does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(arguments)
    parts = [PARTS[asked.only]] if asked.only else list(PARTS.values())
    results = [holds(part, 6 if asked.small else 60) for part in parts]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
