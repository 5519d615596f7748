"""Bugs to plant: what a tired programmer might have written, each with the tests that should notice."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """Its edits, and the tests that should notice it."""

    name: str
    edits: Sequence[Edit]
    tests: Sequence[str]


STATEMENTS, TRANSITIONS = "app/outbox/statements.py", "app/outbox/transition_statements.py"
DISPATCHER, FLUSH, CLAIMING = "app/outbox/dispatcher.py", "app/outbox/flush.py", "app/outbox/claiming.py"
RECORDING, DECIDE = "app/outbox/recording.py", "app/outbox/decide.py"
STORAGE, INCOMING, FILES = "app/storage/folders.py", "app/storage/incoming.py", "app/storage/files.py"
INGEST, COMMIT, GROUP_COMMIT = "app/ingest/ingest.py", "app/ingest/commit.py", "app/ingest/group_commit.py"
CLAIMS, ENQUEUE, OUTCOMES = (
    "tests/outbox/test_claims.py",
    "tests/outbox/test_enqueue.py",
    "tests/outbox/test_transitions.py",
)
CIRCUIT, FLUSHES, PROCESSES = (
    "tests/outbox/test_circuit_breaker.py",
    "tests/outbox/test_flush.py",
    "tests/outbox/test_processes.py",
)
CRASHES, RECORDINGS = "tests/ingest/test_crash_points.py", "tests/ingest/test_group_commit.py"
HOLDS, DECISIONS = "tests/outbox/test_holds.py", "tests/outbox/test_decide.py"
DELIVERED = "_S.acked_seq.in_((given.c.seq - ONE, given.c.seq)),"

BUGS = (
    Bug(
        "a delivery that does not look at the lease's epoch",
        [Edit(TRANSITIONS, "STREAM_LEASE.fence(given.c.lease_epoch)", "_S.lease_owner.is_not(None)")],
        [CLAIMS],
    ),
    Bug(
        "a delivery that does not look at acked_seq",
        [Edit(TRANSITIONS, DELIVERED, "")],
        [CLAIMS, OUTCOMES],
    ),
    Bug(
        "a transition that does not look at the lease's epoch",
        [Edit(TRANSITIONS, "STREAM_LEASE.fence(row.lease_epoch)", "_S.lease_owner.is_not(None)")],
        [CLAIMS],
    ),
    Bug(
        "a transition applied though the lease was let go",
        [Edit(TRANSITIONS, "STREAM_LEASE.fence(row.lease_epoch)", "_S.lease_epoch == row.lease_epoch")],
        [OUTCOMES],
    ),
    Bug(
        "a gap in the numbers",
        [Edit(STATEMENTS, '"last_seq": _S.last_seq + ONE,', '"last_seq": _S.last_seq + 2,')],
        [ENQUEUE],
    ),
    Bug(
        "a backoff shortened by the next message",
        [Edit(STATEMENTS, "case((_S.parked_at.is_(None), func.coalesce(_S.due_at, self.now)))", "self.now")],
        [ENQUEUE],
    ),
    Bug(
        "a claim that takes what is leased",
        [Edit(STATEMENTS, "_S.due_at <= self.now, chosen", "_S.due_at.is_not(None), chosen")],
        [CLAIMS],
    ),
    Bug(
        "a lease that ran out forgotten",
        [
            Edit(
                STATEMENTS,
                "outcome_unknown=or_(_S.outcome_unknown, _S.lease_owner.is_not(None)),",
                "outcome_unknown=_S.outcome_unknown,",
            )
        ],
        [CLAIMS],
    ),
    Bug("an open circuit ignored", [Edit(CLAIMING, "if circuit.is_closed:", "if circuit:")], [CIRCUIT]),
    Bug(
        "a held user's messages claimed",
        [
            Edit(
                CLAIMING,
                "        if not holds_any:\n            return self._queue.claim",
                "        if True:\n            return self._queue.claim",
            )
        ],
        [HOLDS],
    ),
    Bug(
        "a refusal that parks at once",
        [Edit(DECIDE, "if (counted > 1 and", "if (counted > 0 and")],
        [DECISIONS],
    ),
    Bug(
        "a conflict that nothing confirms counted as delivered",
        [
            Edit(
                "app/annotations/conflict.py",
                "    elif lookup.presence is Presence.ABSENT:  # a 404 alone never means delivered\n",
                "    elif lookup.presence is None:\n",
            )
        ],
        ["tests/annotations/test_classify.py"],
    ),
    Bug(
        "a late answer that decides the circuit",
        [
            Edit(
                RECORDING,
                "lost = {result.claim.message.media_id for result in relevant} - leased",
                "lost = leased - leased",
            )
        ],
        [CLAIMS, CIRCUIT],
    ),
    Bug(
        "trouble that counts as a refusal",
        [
            Edit(
                DECIDE,
                "return self._retry(claim, attempt, delay, failed=True)",
                "return self._retry(claim, attempt, delay, counted=True, refused=True)",
            )
        ],
        [OUTCOMES],
    ),
    Bug(
        "a send with too little lease left",
        [Edit("app/outbox/delivery_workers.py", "if self._monotonic() <= last_start and (", "if last_start and (")],
        [CLAIMS],
    ),
    Bug(
        "a flush that breaks leases",
        [Edit(FLUSH, ".where(stream.due_at > now, stream.lease_owner.is_(None), ", ".where(stream.due_at > now, ")],
        [FLUSHES],
    ),
    Bug(
        "results dropped when the database fails",
        [Edit(DISPATCHER, "            self._workers.put_back(results)\n", "")],
        [PROCESSES],
    ),
    Bug(
        "a create without its message",
        [
            Edit(
                "app/media/status.py",
                "    queue.begin_streams(transaction, [_create_message(item) for item in new], now)\n",
                "    [_create_message(item) for item in new]\n",
            )
        ],
        [ENQUEUE],
    ),
    Bug(
        "a file that is not synced",
        [
            Edit(
                INCOMING,
                'a second fsync may succeed despite lost data."""\n'
                "        with translate_os_errors(self.path):\n            os.fsync(self.fd)\n",
                'a second fsync may succeed despite lost data."""\n',
            )
        ],
        [CRASHES],
    ),
    Bug("a folder that is not synced", [Edit(FILES, "            os.fsync(fd)\n", "            pass\n")], [CRASHES]),
    Bug(
        "a row committed before its file is published",
        [
            Edit(
                INGEST,
                "            if candidate.incoming.publish(candidate.path):\n"
                "                result = commit_media(self._database, self._group_commit, candidate)\n",
                "            if not name_exists(candidate.path):\n"
                "                result = commit_media(self._database, self._group_commit, candidate)\n"
                "                candidate.incoming.publish(candidate.path)\n",
            ),
        ],
        [CRASHES],
    ),
    Bug(
        "an upload told of its commit before it is durable",
        [
            Edit(
                GROUP_COMMIT,
                "        try:\n            self._commit_group(group)\n",
                "        for waiter in group[1:]:\n            waiter.finish(None)\n"
                "        try:\n            self._commit_group(group)\n",
            ),
            Edit(
                GROUP_COMMIT,
                "isinstance(error, Unavailable)\n            waiter.finish(error)\n",
                "isinstance(error, Unavailable)\n            waiter.result.done() or waiter.finish(error)\n",
            ),
        ],
        [RECORDINGS],
    ),
    Bug(
        "a group that syncs the folder of its first upload only",
        [
            Edit(
                GROUP_COMMIT,
                "for folder in {waiter.pending.folder for waiter in group}:",
                "for folder in {group[0].pending.folder}:",
            ),
            Edit(
                GROUP_COMMIT,
                "return [waiter for waiter in group if waiter.pending.folder in synced]",
                "return list(group) if synced else []",
            ),
        ],
        [RECORDINGS],
    ),
    Bug(
        "a final name kept though the id turned out to be taken",
        [Edit(COMMIT, "        candidate.incoming.unpublish(candidate.path)\n        ensure", "        ensure")],
        ["tests/ingest/test_ingest.py"],
    ),
    Bug(
        "a conflict that fails the whole group",
        [Edit(GROUP_COMMIT, "return error, not begun or len(group) == 1", "return error, True")],
        [RECORDINGS],
    ),
    Bug(
        "a shared commit of unknown fate taken for one that failed",
        [
            Edit(
                GROUP_COMMIT,
                "if committing and not isinstance(error, IntegrityError | StorageFull):",
                "if error is None:",
            )
        ],
        [CRASHES, "tests/ingest/test_unknown_commits.py"],
    ),
    Bug(
        "a picture begun out of turn",
        [
            Edit(
                "app/runs/lifecycle.py",
                "        if transaction.core.scalar(self._statements.any_claimable) is not None:\n",
                "        if transaction.core.scalar(self._statements.any_claimable) is None and not media.id:\n",
            )
        ],
        ["tests/runs/test_speculative_runs.py"],
    ),
    Bug(
        "an upload under way taken for an orphan",
        [Edit("app/storage/verification.py", "if orphan is None or self._named([path]):", "if orphan is None:")],
        ["tests/storage/test_verification.py"],
    ),
    Bug(
        "a restored database that goes on in the epoch that it had",
        [Edit("app/database/history.py", "epoch=highest.epoch + 1", "epoch=highest.epoch")],
        ["tests/storage/test_folder_ownership.py"],
    ),
    Bug(
        "a count that makes a marker on whatever disk is mounted",
        [
            Edit(
                "app/storage/folder_marker.py",
                "            if current is None or current.instance != marker.instance:\n"
                "                return False\n",
                "",
            )
        ],
        ["tests/storage/test_folder_ownership.py"],
    ),
    Bug(
        "an upload into a folder that is not the one it was",
        [Edit(STORAGE, "if reason:\n            raise Unavail", "if False:\n            raise Unavail")],
        ["tests/storage/test_folder_ownership.py"],
    ),
    Bug(
        "leases left where a clock that was set back has put them",
        [Edit("app/outbox/schedule.py", "STREAM_LEASE.bound(LONGEST_LEASE)", "STREAM_LEASE.bound(10 * 365 * 86400.0)")],
        ["tests/outbox/test_clock_steps.py"],
    ),
    Bug(
        "resent although it changed since its record was fetched",
        [Edit("app/outbox/resend.py", "if expected_for(session, [media.id]) != [expected]:", "if media is None:")],
        ["tests/outbox/test_resend.py"],
    ),
    Bug(
        "waiting messages left before those that say it all again",
        [Edit("app/outbox/resend.py", "        _supersede_waiting(session, queue, stream)\n", "")],
        ["tests/outbox/test_resend.py"],
    ),
)
