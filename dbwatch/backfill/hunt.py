"""A row that cannot take its value is hunted down by halving the batch that met it, and set aside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg

from dbwatch.backfill import quarantine
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.part import Filled, Part, Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.trouble import Poison, poisonous
from dbwatch.backfill.worker import BatchWorker
from dbwatch.postgres.session import describe


@dataclass(frozen=True, slots=True)
class Hunt:
    """How many keys the next batch takes. Pure.

    It guides the size only: which rows are done is the cursor's to say, so that nothing is lost or done twice where
    rows come and go meanwhile, a COMMIT's answer is lost, or the process dies.
    """

    keys: int = 0
    """So many keys above the cursor are in question; 0: there is no hunt."""
    certain: bool = False
    """One of them failed just now; otherwise one was set aside just below, and the batches grow again from one key."""

    @property
    def on(self) -> bool:
        return self.keys > 0

    @property
    def take(self) -> int:
        """Keys that the next batch takes at most, while it is on."""
        return max(1, self.keys // 2) if self.certain else self.keys

    def failed(self, took: int) -> Hunt:
        """A batch of so many keys failed."""
        return Hunt(took, certain=True)

    def passed(self, took: int, most: int) -> Hunt:
        """One was committed; *most* is what a batch takes otherwise."""
        if not self.certain:
            return Hunt() if 2 * took >= most else Hunt(2 * took)
        return Hunt(self.keys - took, certain=True) if took < self.keys else Hunt()

    def set_aside(self) -> Hunt:
        """The one key that was left is in quarantine. Where one is, others often stand beside it."""
        return Hunt(1)


class Hunter:
    """Carries out parts, each the next from where the worker's cursor stands, and deals with what is poison in them."""

    def __init__(self, worker: BatchWorker, plan: Plan, reporter: Reporter) -> None:
        self.hunt = Hunt()
        self._worker = worker
        self._hold = worker.hold
        self._plan = plan
        self._reporter = reporter
        self._because = ""

    def deals_with(self, error: psycopg.Error) -> bool:
        """Whether *error* calls for a hunt: it is a row's fault, and rows may be set aside."""
        return self._plan.spec.quarantine > 0 and poisonous(error)

    @property
    def spared_by(self) -> int | None:
        """The backfill's id where it holds rows in quarantine."""
        return self._hold.position.id if self._reporter.quarantined else None

    async def fill(self, session: BatchSession, part: Part, keys: int, most: int, timeouts: Timeouts) -> Filled | None:
        """Fills *part*, which is of so many *keys* where a batch may take *most*; the position is the new one then.

        None where it met poison: nothing of it was filled, and either its row was set aside, or the next part is to be
        smaller (`hunt`). Raises DbwatchError where the budget is spent, and as `BatchSession.fill` does.
        """
        at = self._hold.position
        try:
            filled = await session.fill(at, part, timeouts)
        except psycopg.Error as error:
            if not self.deals_with(error):
                raise
            await session.rollback()
            await self._met(error, session, part, keys, timeouts)
            return None
        self._hold.position = at.after(rows=filled.rows, keys=part.keys, cursor=part.next)
        if self.hunt.on:
            self.hunt = self.hunt.passed(keys, most)
        return filled

    async def fill_or_leave(self, session: BatchSession, part: Part, timeouts: Timeouts) -> Filled | None:
        """Fills *part*, which is a range of pages; None where it met poison: then all of it is left to the final scan,
        which hunts it down. Raises as `fill` does."""
        at = self._hold.position
        try:
            filled = await session.fill(at, part, timeouts)
        except psycopg.Error as error:
            if not self.deals_with(error):
                raise
            await session.rollback()
            await _blame_a_row(error, session, part, timeouts)
            self._because = f"leaves a row that cannot take its value to the final scan: {describe(error)}"
            return None
        self._hold.position = at.after(rows=filled.rows, keys=part.keys, cursor=part.next)
        self._because = ""
        return filled

    def tell(self) -> None:
        """Hands on what is being done."""
        self._worker.tell_running(self._because)

    async def _met(
        self, error: psycopg.Error, session: BatchSession, part: Part, keys: int, timeouts: Timeouts
    ) -> None:
        if not part.statements.one_by:
            self._because = f"looks for the row that cannot take its value: {describe(error)}"
            if not self.hunt.on:
                await _blame_a_row(error, session, part, timeouts)
            self.hunt = self.hunt.failed(keys)
            return
        at, poison = self._hold.position, Poison.of(part.statements.named(part.hi), error)
        held = await quarantine.tally(session.session, at.id)
        if held.rows >= self._plan.spec.quarantine:
            raise quarantine.spent(self._plan.work, at.id, held, self._plan.spec.quarantine, poison) from error
        await session.set_aside(at, part, poison, timeouts)
        self._hold.position = at.after(rows=0, keys=part.keys, cursor=part.next)
        self._because = f"set the row {quarantine.shown(poison.key)} aside: {describe(error)}"
        self._reporter.quarantined = held.rows + 1
        self.hunt = self.hunt.set_aside()


async def _blame_a_row(error: psycopg.Error, session: BatchSession, part: Part, timeouts: Timeouts) -> None:
    """Raises *error* where the UPDATE fails without any row as well: a statement's trigger, say, refuses it."""
    nothing = replace(part, lo=part.hi, of=1)
    try:
        await session.on_trial(nothing, timeouts)
    except psycopg.Error as other:
        await session.rollback()
        if poisonous(other):
            raise error from other
        raise
