"""What a batch takes, within which limits, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill.keys import Key
from dbwatch.backfill.statements import Statements

ANSWER_S = 15.0
"""How much longer than its server-side limits a statement may take to answer before the socket is closed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Server-side limits of a batch, part of its transaction."""

    lock_ms: int
    statement_ms: int
    lasts: bool = True
    """Its COMMIT waits for the disk; False: only where a standby has to have it."""

    @classmethod
    def of(
        cls, target_s: float, lock_ms: int | None = None, statement_ms: int | None = None, *, lasts: bool = True
    ) -> Timeouts:
        """Those that follow from the target time, where the spec names none.

        Half a second for a lock: less than deadlock_timeout, so that in a deadlock it is mostly we who give way; ten
        seconds for a statement: what a slow disk needs while a checkpoint runs.
        """
        return cls(
            lock_ms=max(500, round(3000 * target_s)) if lock_ms is None else lock_ms,
            statement_ms=max(10_000, round(50_000 * target_s)) if statement_ms is None else statement_ms,
            lasts=lasts,
        )

    def within_s(self, texts: int) -> float:
        """How long a message of so many *texts* may take until the socket is closed: two of them as long as they may.
        Where more do, what is committed stays, and the row tells what it was."""
        return min(texts, 2) * (self.lock_ms + self.statement_ms) / 1000 + ANSWER_S


@dataclass(frozen=True, slots=True)
class Part:
    """What one batch takes."""

    statements: Statements
    """Of the leg that it is on, `one_by` and `spared_by` included."""
    lo: Key | None
    """What lies above this key, up to *hi*."""
    hi: Key
    keys: int
    """So many count as passed."""
    next: str | None
    """The cursor once it is committed."""
    number: int = 0
    of: int = 1
    """Only the stripes of this pass of so many; 1 takes all."""
    fillable: bool = False
    """Only rows that SET will clear."""
    moves: bool = True
    """The cursor is moved past it; False: what it did is counted only, and the cursor follows later."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A committed batch."""

    rows: int
    seconds: float
    wal_bytes: int
    hot: float | None
    """Share of its updates that were HOT; None where the server does not count (track_counts, a partitioned table)."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A committed batch of the way back."""

    rows: int
    """Brought back."""
    seen: int
    """Images in its range, those included whose row was left as it is."""
    seconds: float
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class Pending:
    """What is still pending in a range."""

    rows: int
    unfillable: int
    seconds: float
