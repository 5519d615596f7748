"""Two processes that write to one SQLite file: what they commit with our waiting for the lock and with SQLite's own.

python -m benchmarks.writers [ROUNDS]
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from app.database.sqlite_engine import begin_writing

PROCESSES = 2
SECONDS = 3.0
PATIENCE = 5.0
BETWEEN_SECONDS = 0.0005
"""Between two transactions of a process."""
ROW = 300
OURS, SQLITES = "ours", "SQLite's"


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def write(path: Path, kind: str) -> None:
    """Commit for so many seconds; prints how many transactions and the longest wait for one's turn, in seconds."""
    commits, longest = 0, 0.0
    with closing(connect(path, 0 if kind == OURS else PATIENCE)) as connection:
        end = time.monotonic() + SECONDS
        while (began := time.monotonic()) < end:
            if kind == OURS:
                begin_writing(connection, PATIENCE)
            else:
                connection.execute("BEGIN IMMEDIATE")
            longest = max(longest, time.monotonic() - began)
            connection.execute("INSERT INTO written VALUES (zeroblob(?))", (ROW,))
            connection.execute("COMMIT")
            commits += 1
            time.sleep(BETWEEN_SECONDS)
    print(commits, longest)


def compare(kind: str) -> tuple[float, float]:
    """Transactions a second of all processes, and the longest wait of any."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.db"
        with closing(connect(path, PATIENCE)) as connection:
            connection.execute("CREATE TABLE written (content BLOB)")
        command = [sys.executable, "-m", "benchmarks.writers", str(path), kind]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
        said = [process.communicate()[0].split() for process in running]
    return sum(int(commits) for commits, _ in said) / SECONDS, max(float(longest) for _, longest in said)


def main() -> None:
    if len(sys.argv) > 2:
        write(Path(sys.argv[1]), sys.argv[2])
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[tuple[float, float]]] = {OURS: [], SQLITES: []}
    for _ in range(rounds):
        for kind, results in found.items():
            results.append(compare(kind))
    for kind, results in found.items():
        speed, longest = median(rate for rate, _ in results), max(wait for _, wait in results)
        print(f"{kind} waiting: {speed:.0f} transactions/s, longest wait {longest * 1000:.0f} ms")


if __name__ == "__main__":
    main()
