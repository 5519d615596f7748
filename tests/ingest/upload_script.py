"""Uploads in separate processes, for tests that break or kill them.

Everything is imported once. Each line on standard input, a JSON list of a folder, a database URL and a file path (or
`--sweep`, `--try`, or `--together`), is handled by a fork, which prints the ids of its main thread and of the
committing thread, waits for another line, and prints its result. Uploads that run together each write their result into
a file beside the folders as it happens.
"""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.database import Database
from app.errors import DetectionsError
from tests.ingest.intake import TOGETHER, Intake, open_intake, picture

LINES = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 (the fork reads on where its parent stopped)
ANSWERS = os.dup(1)
os.dup2(2, 1)  # log lines must not mix with the results


def act(intake: Intake, file: str) -> str:
    if file == "--together":
        return send_together(intake)
    try:
        if file == "--sweep":
            report = intake.sweep.run()
            return f"swept {report.leftovers} {report.orphans}"
        if file == "--try":
            return tried(intake)
        return "duplicate" if intake.send(Path(file).read_bytes()).duplicate else "stored"
    except DetectionsError as error:
        return type(error).__name__


def tried(intake: Intake) -> str:
    try:
        intake.storage.ensure_fit()
    except DetectionsError as error:
        return str(error)
    return "fit"


def send_together(intake: Intake) -> str:
    told = os.open(intake.folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ready = threading.Barrier(TOGETHER)

    def send(number: int) -> str:
        ready.wait()
        try:
            outcome = "duplicate" if intake.send(picture(number)).duplicate else "stored"
        except DetectionsError as error:
            outcome = type(error).__name__
        os.write(told, f"{number} {outcome}\n".encode())
        return outcome

    with ThreadPoolExecutor(TOGETHER) as pool:
        return " ".join(pool.map(send, range(TOGETHER)))


def say(line: str) -> None:
    """Write a line in one system call, so that a kill never leaves half of it."""
    os.write(ANSWERS, f"{line}\n".encode())


def work(folder: str, url: str, file: str) -> None:
    database = Database(url)
    intake = open_intake(Path(folder), database)
    intake.rows()  # connect before the upload begins
    writer = intake.ingest._group_commit._writer.submit(threading.get_native_id).result()
    say(f"{os.getpid()} {writer}")
    LINES.readline()
    say(act(intake, file))
    database.close()


def main() -> None:
    while line := LINES.readline():
        if os.fork() == 0:
            try:
                work(*json.loads(line))
            finally:
                os._exit(0)
        os.wait()
        say("ended")


if __name__ == "__main__":
    main()
