"""What holds for the project as a whole and that no linter says: who begins transactions, what no file may name."""

import ast
import hashlib
import re
import subprocess
from functools import cache
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

pytestmark = pytest.mark.slow


TRANSACTIONS_BEGIN_IN = {
    "app/runs/lifecycle.py",
    "app/runs/retention.py",
    "app/ingest/duplicates.py",  # a row from before there were checksums gets one
    "app/ingest/orphans.py",
    "app/storage/folder_ownership.py",  # at the first start, and where the database was restored
    "app/outbox/admin.py",
    "app/outbox/dispatcher.py",
    "app/outbox/resend.py",
    "app/ingest/group_commit.py",
    "app/resumable/records.py",
    "app/storage/sweep.py",
    "app/media/updates.py",
}
"""Exactly the use cases that begin transactions, twelve at most; everything else is handed the open one."""

IN_THE_DATABASE_PACKAGE = {
    "app/database/clock_guard.py",  # to correct times that a clock set back has left too far ahead
    "app/database/engine.py",  # to overwrite a failed commit
    "app/database/queries.py",  # for every read that is by itself
}

READ_THE_ENVIRONMENT = {
    "app/settings/reader.py",
    "app/cli/media/upload.py",  # on a person's machine: where their programs keep what they remember
}

LOCKS = ("requirements.txt", "tests/requirements.txt")


@cache
def app_modules() -> tuple[tuple[str, ast.Module], ...]:
    """Every module of the service with its path from the root; the demo stands outside it, as another program would."""
    paths = [path for path in sorted((ROOT / "app").rglob("*.py")) if not path.is_relative_to(ROOT / "app/demo")]
    return tuple((path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def calls(tree: ast.Module, *names: str) -> bool:
    """Whether a function or a method of one of these names is called."""
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        (isinstance(function, ast.Name) and function.id in names)
        or (isinstance(function, ast.Attribute) and function.attr in names)
        for function in called
    )


def uses_engine(tree: ast.Module) -> bool:
    """Whether one of a database's two engines is used."""
    engines = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in {"reader", "writer"})
    return any(ast.unparse(engine.value).endswith("database") for engine in engines)


def reads_environment(tree: ast.Module) -> bool:
    """Whether `os.environ` or the like is used other than to set a variable for a library."""
    set_only = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    return any(
        (
            isinstance(node, ast.Attribute)
            and node.attr in {"environ", "environb", "getenv"}
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node not in set_only
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and any("env" in name.name for name in node.names))
        for node in ast.walk(tree)
    )


def names(tree: ast.Module, *attributes: str) -> bool:
    """Whether an attribute of one of these names is used, called or handed on."""
    return any(isinstance(node, ast.Attribute) and node.attr in attributes for node in ast.walk(tree))


def test_transactions_begin_in_the_named_files_only() -> None:
    begin = {name for name, tree in app_modules() if names(tree, "read_transaction", "write_transaction")}
    assert begin == TRANSACTIONS_BEGIN_IN | IN_THE_DATABASE_PACKAGE
    assert len(TRANSACTIONS_BEGIN_IN) <= 12


def test_there_is_no_other_way_to_begin_a_transaction() -> None:
    makers = ("create_engine", "engine_from_config", "scoped_session", "sessionmaker", "Session")
    around = {name for name, tree in app_modules() if calls(tree, *makers) or uses_engine(tree)}
    makes_engines = {"app/database/sqlite_engine.py", "app/database/postgres_engine.py"}
    listens_outside_any_transaction = "app/outbox/watch.py"
    assert around == {listens_outside_any_transaction} | makes_engines


def test_nobody_who_is_handed_a_session_ends_its_transaction() -> None:
    undoes_its_own = "app/database/sqlite_file.py"  # on a connection that no session has
    commits_with_a_notice = "app/database/postgres_connection.py"
    end = {name for name, tree in app_modules() if calls(tree, "commit", "rollback")}
    assert end <= {undoes_its_own, commits_with_a_notice}


def test_only_the_settings_read_the_environment() -> None:
    assert {name for name, tree in app_modules() if reads_environment(tree)} == READ_THE_ENVIRONMENT


def project_files() -> list[Path]:
    """What is committed or would be."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_somebody_s_machine_or_a_package_registry() -> None:
    folders = "work|farm|root|home|Users"
    hosts = ("pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "deb" + r"\.debian", "bash" + "_jobs")
    options = ("extra-" + "index-url", "--" + "find-links")
    forbidden = re.compile(rf"(?<![\w.)}}])/(?:{folders})/|{'|'.join(hosts + options)}".encode())
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line[:120]!r}"
        for path in project_files()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_pinned_and_has_a_hash(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pinned = re.compile(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}")
    assert requirements
    assert [line for line in requirements if not pinned.match(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_asked_for_is_locked(lock: str) -> None:
    asked, locked = (
        set(re.findall(r"^[a-z][\w.-]*", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in ((ROOT / lock).with_suffix(".in"), ROOT / lock)
    )
    assert asked
    assert asked - locked == set()


def locked_requirements(*locks: str) -> list[Requirement]:
    """What the lock files name, without the hashes."""
    texts = [(ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ") for lock in locks]
    lines = [line for text in texts for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [Requirement(line.partition(" --hash")[0]) for line in lines]


def test_what_locked_packages_ask_for_with_extras_is_locked_too() -> None:
    locked = [one for one in locked_requirements(*LOCKS) if one.marker is None or one.marker.evaluate()]
    names = {canonicalize_name(one.name) for one in locked}
    asked = [(one, set(one.extras)) for one in locked]
    lacking, seen = set(), set()
    while asked:
        package, extras = asked.pop()
        for text in requires(package.name) or []:
            wanted = Requirement(text)
            if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            if canonicalize_name(wanted.name) not in names:
                lacking.add(f"{wanted.name}, which {package.name} asks for")
            elif (wanted.name, *sorted(wanted.extras)) not in seen:
                seen.add((wanted.name, *sorted(wanted.extras)))
                asked.append((wanted, set(wanted.extras)))
    assert lacking == set()


def test_the_notice_names_what_others_made_and_the_weights_are_the_ones_it_names() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    weights = list((ROOT / "app/detection/models").glob("*.onnx"))
    pictures = list((ROOT / "app/demo/media").iterdir())
    assert weights
    assert pictures
    assert [path for path in weights + pictures if path.relative_to(ROOT).as_posix() not in notice] == []
    assert [path for path in weights if hashlib.sha256(path.read_bytes()).hexdigest() not in notice] == []
