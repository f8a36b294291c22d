"""Waits for an ANALYZE of the table to end: our own updates call for it, and its snapshot keeps what they leave behind.

Stripes live on pages that are pruned between two passes. Measured on 18 (2 M rows, two workers): an ANALYZE of 1.2 s
costs as many rows their HOT update as are done meanwhile, a tenth of them all, and each of these three times the work;
the heap grows to 1.33 instead of 1.22 times its size.
"""

from __future__ import annotations

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.progress import State
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock
from dbwatch.text import one_line

MOST_S = 3.0
"""How long one ANALYZE is waited for; one that is throttled may take minutes."""
EVERY_S = 0.1
"""How often it is looked whether it has ended."""


class Outwaiting:
    """What is known of the ANALYZE that is under way."""

    def __init__(self, worker: BatchWorker, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock
        self._given_up = False
        """The one that is under way was waited for as long as one may be."""

    async def analyze(self, session: BatchSession, statements: Statements, *, seen: bool) -> None:
        """Returns once none is under way, at once where none was *seen*; else after MOST_S, or when no further batch
        may begin. Raises as `Session.call` does."""
        if not seen or self._given_up:
            self._given_up = self._given_up and seen
            return
        until = self._clock.monotonic() + MOST_S
        table = one_line(f"{statements.schema}.{statements.table}")
        while self._worker.goes_on and await session.is_analyzed(statements):
            self._worker.tell(
                State.THROTTLED,
                f"waits for the ANALYZE of {table} to end: meanwhile no page can be pruned",
                f"waited for an ANALYZE of {table}",
            )
            if self._clock.monotonic() >= until:
                self._given_up = True
                break
            await self._clock.sleep(EVERY_S)
