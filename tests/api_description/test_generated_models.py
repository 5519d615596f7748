"""Models generated from the document accept what is sent, and nothing else.

datamodel-code-generator has dependencies that nothing else needs, so it has an environment of its own: `python -m venv
.venv-codegen && .venv-codegen/bin/pip install datamodel-code-generator`.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from app.web.views.openapi import DOCUMENT
from tests.annotations.conftest import message
from tests.paths import ROOT

pytestmark = pytest.mark.slow

COMMAND = "datamodel-codegen"
CHECK = """
import json, sys
import models
for line in sys.stdin:
    name, body = json.loads(line)
    try:
        getattr(models, name).model_validate(body)
    except ValueError as error:
        print(f"{name} {body}: {error}")
print(models.MediaStatus.AIProcessed.value, models.RemoteStatus.OtherService4.value)
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder with `models.py`, and the interpreter that can import it."""
    own = ROOT / ".venv-codegen" / "bin" / COMMAND
    command = str(own) if own.exists() else shutil.which(COMMAND)
    if command is None:
        pytest.skip(f"{COMMAND} is not installed: see the docstring of this file")
    folder = tmp_path_factory.mktemp("generated")
    options = ["--input-file-type", "openapi", "--openapi-scopes", "schemas", "webhooks"]
    models = ["--output-model-type", "pydantic_v2.BaseModel", "--output", str(folder / "models.py")]
    done = subprocess.run(
        [command, "--input", str(DOCUMENT), *options, *models], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, Path(command).parent / "python"


def checked(generated: tuple[Path, Path], *bodies: tuple[str, object]) -> list[str]:
    folder, python = generated
    lines = "\n".join(json.dumps(body) for body in bodies)
    done = subprocess.run(
        [python, "-c", CHECK], input=lines, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def test_generated_models_take_what_is_sent_and_name_the_statuses(generated: tuple[Path, Path]) -> None:
    create = message().payload
    bodies = [("MediaCreated", create), ("MediaCreated", create | {"added": "one day"})]
    assert checked(generated, *bodies, ("MediaStatusChanged", {"mediaStatus": 6})) == ["3 4"]


def test_generated_models_refuse_what_is_never_sent(generated: tuple[Path, Path]) -> None:
    told = checked(generated, ("MediaStatusChanged", {"mediaStatus": 4}), ("MediaCreated", {"id": "x"}))
    assert [line.split(" ")[0] for line in told if line.startswith("Media")] == ["MediaStatusChanged", "MediaCreated"]
