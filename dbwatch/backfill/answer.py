"""What is done about a trouble that can be outlived: what a person is told, the pace from there, and a rest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill.pace import Pace
from dbwatch.backfill.trouble import Trouble
from dbwatch.postgres.session import describe

LONGEST_REST_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """To one trouble."""

    reason: str
    """In plain words."""
    rest_s: float
    """Before the next attempt."""
    pace: Pace
    """Slower, where that helps."""


def answer(
    trouble: Trouble, error: Exception, failures: int, *, pace: Pace, holder: str = "", because: str = ""
) -> Answer:
    """To *trouble*, which *error* made known, after so many *failures* of this batch.

    *holder* is who held the lock that it waited for, where that was seen; *because* is why we cancelled it ourselves.
    """
    backing_off = min(LONGEST_REST_S, 0.1 * 2 ** min(failures, 10))
    match trouble:
        case Trouble.LOCKED:
            who = holder or "another session"
            return Answer(f"waits for a lock held by {who}, try {failures + 1}", backing_off, pace.after_timeout())
        case Trouble.TIMEOUT:
            words = "a batch took longer than its statement_timeout; a smaller one is next"
            return Answer(words, backing_off, pace.after_timeout())
        case Trouble.CANCELLED if because:
            return Answer(f"cancelled the batch: {because}", 0.0, pace.after_timeout())
        case Trouble.CANCELLED:
            words = "somebody cancelled the batch; a smaller one is next"
            return Answer(words, LONGEST_REST_S, pace.after_timeout())
        case Trouble.DEADLOCK:
            words = "gave way in a deadlock; half the batch is next"
            return Answer(words, min(1.0, 0.02 * failures), pace.after_deadlock())
        case Trouble.CROWDED:
            return Answer(f"the server lacks room: {describe(error)}", backing_off, pace)
        case _:
            return Answer(f"connection lost, try {failures}: {describe(error)}", backing_off, pace)
