"""The certificate of a complete backfill: what it did, and what it left. Pure.

It says what the end of the run found, and is of that moment: what the application writes since is a check's to find.
Rows in quarantine are named, for whoever requires the certificate decides how many of them it tolerates. In mode once
nothing in a row tells whether it was set, so all that can be certified is that the walk passed every key up to the
highest one at the start, each once.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill import harm
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Result
from dbwatch.text import age, one_line


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is certified of one backfill; all text is harmless."""

    backfill: int
    """Its number in the journal."""
    table: str
    mode: str
    rows: int
    """Changed, by all its runs."""
    batches: int
    seconds: float
    """Of the run that ended it; 0 where it had been ended before."""
    quarantined: int
    unfillable: int
    """Pending rows that SET leaves so: a backfill that has some is not complete."""
    pending: int | None
    """Rows left besides those in quarantine; None in mode once."""
    same: str
    """What holds for every row that WHERE does not take any more; empty: nothing was asked."""
    compared: int
    """Rows of which that was found, once all was filled."""
    harm: str
    """What the run did to others; empty where it had been ended before."""

    def __str__(self) -> str:
        left = f"{self.quarantined:,} in quarantine and not filled" if self.quarantined else "none in quarantine"
        end = "none pending" if self.mode == "pending" else "each key up to the highest at its start was passed once"
        held = f"; for {self.compared:,} rows it was looked that {self.same}" if self.same else ""
        took = f" in {age(self.seconds)}; {self.harm}" if self.harm else ""
        return f"{self.table}: {self.rows:,} rows in {self.batches:,} batches, {end}, {left}{held}{took}"


def of(result: Result, plan: Plan, last: BackfillProgress | None) -> Certificate | None:
    """The certificate that *result* of *plan* deserves, which told *last* at its end; None: it is not complete."""
    if result.outcome is not State.DONE:
        return None
    did = harm.told(last.delayed, last.delayed_s, last.delayed_worst_s) if last and not result.already else ""
    return Certificate(
        backfill=result.id,
        table=plan.table,
        mode=plan.spec.mode,
        rows=result.rows,
        batches=result.batches,
        seconds=round(result.seconds, 3),
        quarantined=result.quarantined,
        unfillable=result.unfillable,
        pending=0 if plan.spec.mode == "pending" else None,
        same=one_line(plan.spec.same or ""),
        compared=result.compared,
        harm=did,
    )
