"""Bugs to plant: what a tired programmer might have written, each with the tests that should notice."""

from tests.bugs.bug import Bug
from tests.bugs.files import FILE_BUGS
from tests.bugs.outbox import OUTBOX_BUGS

__all__ = ["BUGS", "Bug"]

BUGS = OUTBOX_BUGS + FILE_BUGS
