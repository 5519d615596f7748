"""Bugs of what comes in and is kept: syncs, publishing, group commit, folders, runs of uploads."""

import copy
import sys
from pathlib import Path
from typing import Any

from tests.bugs.bug import Bug, skip, wrap

CRASHES, RECORDINGS = "tests/ingest/test_crash_points.py", "tests/ingest/test_group_commit.py"
FOLDERS = "tests/storage/test_folder_ownership.py"


def publish_behind_the_commit(module: Any) -> None:
    publish = module.Incoming.publish

    def commit_media(original: Any, database: Any, group_commit: Any, candidate: Any) -> Any:
        result = original(database, group_commit, candidate)
        publish(candidate.incoming, candidate.path)
        return result

    wrap(module, "commit_media", commit_media)
    wrap(module.Incoming, "publish", lambda _original, _self, final: not module.name_exists(final))


def tell_before_the_commit(module: Any) -> None:
    def commit_group(original: Any, group_commit: Any, group: Any) -> Any:
        for waiter in group[1:]:
            waiter.finish(None)
        return original(group_commit, group)

    def finish(original: Any, waiter: Any, error: Any) -> None:
        if not waiter.result.done():
            original(waiter, error)

    wrap(module.GroupCommit, "_commit_group", commit_group)
    wrap(module._Waiter, "finish", finish)


def sync_one_folder(module: Any) -> None:
    wrap(module, "_sync_folders", lambda original, group: list(group) if original(group[:1]) else [])


def keep_name_of_a_taken_id(module: Any) -> None:
    def unpublish(original: Any, incoming: Any, final: Path) -> None:
        if type(sys.exception()).__name__ != "IntegrityError":
            original(incoming, final)

    wrap(module.Incoming, "unpublish", unpublish)


def fail_the_whole_group(module: Any) -> None:
    wrap(module.GroupCommit, "_commit", lambda original, *given, **named: (original(*given, **named)[0], True))


def take_unknown_for_failed(module: Any) -> None:
    wrap(module, "_unknown", lambda _original, error: error)


def begin_out_of_turn(module: Any) -> None:
    class NobodyWaits:
        def __init__(self, statements: Any) -> None:
            self._statements = statements

        def __getattr__(self, name: str) -> Any:
            if name == "any_claimable":
                return module.select(module.DetectionRun.id).where(module.DetectionRun.id < 0)
            return getattr(self._statements, name)

    def add_speculative(original: Any, runs: Any, *given: Any) -> Any:
        alone = copy.copy(runs)
        alone._statements = NobodyWaits(runs._statements)
        return original(alone, *given)

    wrap(module.Runs, "add_speculative", add_speculative)


def see_no_row(module: Any) -> None:
    def find_orphan(original: Any, verification: Any, path: Path) -> Any:
        blind = copy.copy(verification)
        blind._named = lambda _paths: set()
        return original(blind, path)

    wrap(module.Verification, "_check_unknown", find_orphan)


def stay_in_the_epoch(module: Any) -> None:
    def begin_epoch(original: Any, session: Any, *given: Any) -> Any:
        original(session, *given)
        instance = module.DatabaseInstance
        session.execute(
            module.update(instance).values(epoch=instance.epoch - 1).execution_options(synchronize_session=False)
        )
        return module.get(session)

    wrap(module, "begin_epoch", begin_epoch)


def mark_whatever_is_there(module: Any) -> None:
    def advance(_original: Any, folder: Path, marker: Any) -> bool:
        module.place(folder, marker)
        return True

    wrap(module, "advance", advance)


FILE_BUGS = (
    Bug("a file that is not synced", "app.storage.incoming", lambda module: skip(module.Incoming, "sync"), [CRASHES]),
    Bug("a folder that is not synced", "app.storage.files", lambda module: skip(module, "sync_folder"), [CRASHES]),
    Bug(
        "a row committed before its file is published",
        "app.ingest.ingest",
        publish_behind_the_commit,
        [CRASHES],
    ),
    Bug(
        "an upload told of its commit before it is durable",
        "app.ingest.group_commit",
        tell_before_the_commit,
        [RECORDINGS],
    ),
    Bug(
        "a group that syncs the folder of its first upload only",
        "app.ingest.group_commit",
        sync_one_folder,
        [RECORDINGS],
    ),
    Bug(
        "a final name kept though the id turned out to be taken",
        "app.storage.incoming",
        keep_name_of_a_taken_id,
        ["tests/ingest/test_ingest.py"],
    ),
    Bug("a conflict that fails the whole group", "app.ingest.group_commit", fail_the_whole_group, [RECORDINGS]),
    Bug(
        "a shared commit of unknown fate taken for one that failed",
        "app.ingest.group_commit",
        take_unknown_for_failed,
        [CRASHES, "tests/ingest/test_unknown_commits.py"],
    ),
    Bug(
        "a picture begun out of turn",
        "app.runs.lifecycle",
        begin_out_of_turn,
        ["tests/runs/test_speculative_runs.py"],
    ),
    Bug(
        "an upload under way taken for an orphan",
        "app.storage.verification",
        see_no_row,
        ["tests/storage/test_verification.py"],
    ),
    Bug(
        "a restored database that goes on in the epoch that it had",
        "app.database.history",
        stay_in_the_epoch,
        [FOLDERS],
    ),
    Bug(
        "a count that makes a marker on whatever disk is mounted",
        "app.storage.folder_marker",
        mark_whatever_is_there,
        [FOLDERS],
    ),
    Bug(
        "an upload into a folder that is not the one it was",
        "app.storage.folders",
        lambda module: skip(module.Storage, "_refusal"),
        [FOLDERS],
    ),
)
