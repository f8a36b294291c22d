"""What is asked of a backfill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dbwatch.backfill.walk import Walk
from dbwatch.errors import UsageError
from dbwatch.runbook.values import MOST_WORKERS

Mode = Literal["pending", "once"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked for. SET, WHERE and the rest are the DBA's SQL."""

    table: str
    set: str
    where: str
    key: str | None = None
    """The columns to walk by, `id` or `shop, number`; None chooses."""
    mode: Mode = "pending"
    """pending: SET makes WHERE untrue, so that a row done twice is harmless, and in the end none is left.
    once: WHERE stays true, and only the cursor keeps a row from being set twice."""
    batch_time_ms: int = 100
    """What a batch should take."""
    rows_per_second: int | None = None
    """It fills no more than so many; None: as fast as the health of the server allows."""
    walk: Walk = Walk.AUTO
    """How to walk the table; AUTO decides by the catalogue, and by timing both."""
    undo: bool = False
    """Keep what is overwritten, so that it can be brought back."""
    without: tuple[str, ...] = ()
    """Health signals, by their short names, that it does not look at."""
    quarantine: int = 100
    """How many rows that cannot take their value may be set aside before it ends; 0: the first one ends it."""
    workers: int | None = None
    """Connections that fill side by side, each a part of the table; more than one only in mode pending. None: one, and
    in stripes a second one while nobody else works on the server."""
    same: str | None = None
    """What has to hold for every row that WHERE does not take any more, `phone IS NOT DISTINCT FROM legacy_phone`:
    looked at while it runs, and for the whole table in the end; None: nothing."""
    lock_timeout_ms: int | None = None
    """How long a batch may wait for a row; None derives it from batch_time_ms."""
    statement_timeout_ms: int | None = None
    """How long a statement of ours may take; None derives it from batch_time_ms."""


def require_possible(spec: Spec) -> None:
    """Raises UsageError where no table could be filled so. Pure."""
    if not 10 <= spec.batch_time_ms <= 10_000:
        raise UsageError(f"a batch time of {spec.batch_time_ms} ms is out of range", next="choose 10 ms to 10 s")
    if spec.rows_per_second is not None and spec.rows_per_second < 1:
        raise UsageError("nothing can be filled at fewer than 1 row a second", next="say 1 or more, or leave it out")
    if spec.workers is not None and not 1 <= spec.workers <= MOST_WORKERS:
        raise UsageError(f"{spec.workers} workers are out of range", next=f"choose 1 to {MOST_WORKERS}")
    if spec.workers is not None and spec.workers > 1 and spec.mode == "once":
        raise UsageError(
            "several workers cannot fill in mode once",
            why="only one cursor keeps a row from being set twice",
            next="choose one worker, or mode pending",
        )
    if spec.quarantine < 0:
        raise UsageError("there is no quarantine of fewer than 0 rows", next="0 ends it at the first row")
    if spec.same is not None and spec.mode == "once":
        raise UsageError(
            "nothing can be held to be the same in mode once",
            why="nothing in a row tells whether it was filled",
            next="leave it out, or choose mode pending",
        )
