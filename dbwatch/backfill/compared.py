"""Looks at the whole table, once a backfill has filled it, whether what has to be the same is the same.

By ranges of keys, each a short transaction of its own, as fast as the pace allows, like the final scan: no row that
differs all the while is missed, wherever the heap puts it. Rows without a key are looked at by pages, where one that is
moved just then may be missed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import psycopg

from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.control import Control, StopRequested
from dbwatch.backfill.keys import Key
from dbwatch.backfill.part import Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.same import Limits, Look, Questions, Size, Tally
from dbwatch.backfill.trouble import poisonous, sentence
from dbwatch.clock import Clock
from dbwatch.postgres.session import describe
from dbwatch.text import one_line

T = TypeVar("T")

SWEEP = Size(2_000, 200, 200_000)
"""Keys of one look; between the bounds the time of a batch decides."""
ROWS_A_PAGE = 50
"""About as many; what a look takes is measured anyway."""
NEVER = 2**62
"""A transaction that will not come: what was written since is not asked."""


class Carrier(Protocol):
    """Who carries a look out, and rests after it: a `BatchWorker`."""

    async def carry_out(self, work: Callable[[BatchSession, Timeouts], Awaitable[T]]) -> T: ...

    async def rest(self, worked_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Directly:
    """A carrier without a worker: for a backfill that is over."""

    session: BatchSession
    timeouts: Timeouts
    control: Control
    clock: Clock

    async def carry_out(self, work: Callable[[BatchSession, Timeouts], Awaitable[T]]) -> T:
        """The result of *work*; what goes wrong is raised."""
        return await work(self.session, self.timeouts)

    async def rest(self, worked_s: float) -> None:
        """Rests as long as was worked. Raises StopRequested where a person said stop."""
        await self.control.rest(self.clock, worked_s)
        if self.control.stopping:
            raise StopRequested


@dataclass(frozen=True, slots=True)
class Compared:
    """What the look at the whole table found."""

    rows: int = 0
    differing: int = 0
    note: str = ""
    """What is wrong, or why that cannot be told; empty where all is as it has to be, or nothing was asked."""


async def anew(session: BatchSession, plan: Plan, clock: Clock, control: Control, reporter: Reporter) -> Compared:
    """`whole` for a backfill that was finished before. Raises DbwatchError where the server refuses."""
    pace = Timeouts.of(plan.spec.batch_time_ms / 1000)
    try:
        return await whole(Directly(session, pace, control, clock), plan, reporter)
    except psycopg.Error as error:
        raise sentence(error, plan.work) from error
    except StopRequested:
        return Compared(note="stopped before all rows were looked at")


async def whole(carrier: Carrier, plan: Plan, reporter: Reporter) -> Compared:
    """Looks at each filled row once, as fast as the pace allows.

    A condition that cannot be computed for some row ends it: that is told in place of a count. Raises as *carrier*.
    """
    condition = plan.spec.same
    if condition is None:
        return Compared()
    size, differing, tally = SWEEP, 0, Tally()
    reporter.compared, reporter.differing, reporter.differs = 0, 0, ""
    for part in parts_of(plan, condition):
        at: Key | int | None = None
        while True:
            try:
                found = await carrier.carry_out(partial(_chunk, part, at, size.now))
            except _Incomputable as error:
                asked = one_line(condition, 200)
                return Compared(tally.rows, differing, f"whether {asked} holds for each row cannot be told: {error}")
            if found is None:
                break
            at, look, seconds = found
            size = size.after(seconds, plan.spec.batch_time_ms / 1000)
            tally, differing = tally.after(look), differing + look.differing
            reporter.compared, reporter.differing = tally.rows, differing
            reporter.differs = tally.words(condition, differing)
            await carrier.rest(seconds)
    return Compared(tally.rows, differing, tally.words(condition, differing))


def parts_of(plan: Plan, condition: str) -> tuple[Questions, ...]:
    """What is asked of the table of *plan*: by its keys, all partitions at once; by pages what no key meets. Pure."""
    by_keys = [plan.statements] if plan.key else []
    by_pages = [leg.beside_keys for leg in plan.legs if leg.keyless or plan.nullable]
    return tuple(Questions(statements, condition) for statements in (*by_keys, *by_pages))


class _Incomputable(Exception):
    """The condition fails for a row."""


async def _chunk(
    part: Questions, at: Key | int | None, n: int, session: BatchSession, timeouts: Timeouts
) -> tuple[Key | int, Look, float] | None:
    """The next *n* keys above *at*, or where there is no key the pages from *at* on that hold about as many rows; None
    where there is none."""
    limits = Limits(timeouts.lock_ms, timeouts.statement_ms)
    try:
        if not part.by_pages:
            lo = at if isinstance(at, tuple) else None
            hi, looked_s = await part.edge(session.session, lo, n, limits)
            if hi is None:
                return None
            look = await part.between(session.session, lo, hi, NEVER, limits)
            return hi, look, looked_s + look.seconds
        first = at if isinstance(at, int) else 0
        end = min(first + max(1, n // ROWS_A_PAGE), (await part.blocks(session.session, limits))[0])
        if first >= end:
            return None
        look = await part.pages(session.session, first, end, NEVER, limits)
        return end, look, look.seconds
    except psycopg.Error as error:
        if not poisonous(error):
            raise
        await session.rollback()
        raise _Incomputable(describe(error)) from error
