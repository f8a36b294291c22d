"""The final scan: walks the table once more by key, counts what is still pending, and fills what can be filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import psycopg

from dbwatch.backfill import quarantine
from dbwatch.backfill.batch import BatchSession, Part, Pending, Timeouts
from dbwatch.backfill.hunt import Hunt, Hunter
from dbwatch.backfill.keys import Key, from_text
from dbwatch.backfill.pace import Batch
from dbwatch.backfill.plan import Plan, extra_condition
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.trouble import poisonous
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock

FIRST_KEYS, LEAST_KEYS, MOST_KEYS = 2_000, 200, 200_000
"""Keys that one question of the scan covers: the first one, and the bounds; between them the target time decides."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    hi: Key
    seconds: float
    left: int
    unfillable: int
    filled: int


@dataclass(frozen=True, slots=True)
class _Sweep:
    left: int = 0
    """Rows pending when the scan had passed them."""
    unfillable: int = 0
    filled: int = 0


class FinalScan:
    """Rows may be pending behind the cursor: written there since, or left so by SET itself.

    The first scan fills what it finds. Where it found some, a second does the same, and the last only counts; without
    the text of what stays pending (`Fragments.stays_pending`) rows cannot be told apart, and the second one counts.
    What is in quarantine is left out; a row behind the cursor that cannot take its value either comes there.
    """

    def __init__(self, worker: BatchWorker, hunter: Hunter, plan: Plan, reporter: Reporter, clock: Clock) -> None:
        self._worker = worker
        self._hunter = hunter
        self._plan = plan
        self._reporter = reporter
        self._clock = clock
        self._keys = FIRST_KEYS
        self.unfillable = 0
        """Rows that SET leaves pending, once it has run."""

    async def run(self) -> tuple[int, str]:
        """The rows still pending, without those in quarantine, and why, in one sentence.

        Raises as `BatchWorker.carry_out` does.
        """
        self._reporter.checking = True
        fills = 2 if self._plan.statements.stays_pending is not None else 1
        swept = await self._sweep(fill=True)
        for scan in range(1, fills + 1):
            if not swept.filled:
                break
            swept = await self._sweep(fill=scan < fills)
        self.unfillable = swept.unfillable
        return swept.left, self._explained(swept)

    async def _sweep(self, *, fill: bool) -> _Sweep:
        lo: Key | None = None
        swept = _Sweep()
        while True:
            chunk = await self._worker.carry_out(partial(self._chunk, lo, fill))
            if chunk is None:
                return swept
            lo = chunk.hi
            swept = _Sweep(swept.left + chunk.left, swept.unfillable + chunk.unfillable, swept.filled + chunk.filled)
            self._reporter.remaining = swept.left
            await self._worker.rest(chunk.seconds)

    async def _chunk(self, lo: Key | None, fill: bool, session: BatchSession, timeouts: Timeouts) -> _Chunk | None:
        hi, looked_s = await session.edge(lo, None, self._keys, timeouts)
        if hi is None:
            return None
        pending, filled = await self._counted(lo, hi, session, timeouts)
        seconds = looked_s + pending.seconds
        fitting = self._keys * self._worker.pace.target_s / max(seconds, 1e-4)
        self._keys = round(min(MOST_KEYS, max(LEAST_KEYS, min(2 * self._keys, fitting))))
        left = pending.rows
        if fill and pending.rows > pending.unfillable:
            held = self._reporter.quarantined
            now = await self._fill(lo, hi, session, timeouts)
            left = max(0, left - now - (self._reporter.quarantined - held))
            filled += now
        return _Chunk(hi, seconds, left, pending.unfillable, filled)

    async def _counted(self, lo: Key | None, hi: Key, session: BatchSession, timeouts: Timeouts) -> tuple[Pending, int]:
        """What is pending, and how many rows were filled because of one for which that could not even be told."""
        filled = 0
        while True:
            held = self._reporter.quarantined
            try:
                return await session.count(lo, hi, timeouts, spared_by=self._hunter.spared_by), filled
            except psycopg.Error as error:
                if not self._hunter.deals_with(error):
                    raise
                await session.rollback()
                filled += await self._fill(lo, hi, session, timeouts)
                if self._reporter.quarantined == held:
                    raise

    async def _fill(self, lo: Key | None, hi: Key, session: BatchSession, timeouts: Timeouts) -> int:
        """Fills what SET clears above *lo* up to *hi*, in batches as the pace allows."""
        rows, self._hunter.hunt = 0, Hunt()
        while True:
            await self._worker.may_go()
            began, most, hunting = self._clock.monotonic(), self._worker.pace.size, self._hunter.hunt.on
            take = min(most, self._hunter.hunt.take) if hunting else most
            edge, looked_s = await session.edge(lo, hi, take, timeouts)
            if edge is None:
                return rows
            exact, cursor = take == 1, self._worker.position.cursor
            part = Part(
                edge if exact else lo, edge, 0, cursor,
                fillable=True, exact=exact, spared_by=self._hunter.spared_by,
            )  # fmt: skip
            filled = await self._hunter.fill(session, part, take, most, timeouts)
            if filled is None or hunting:
                self._hunter.tell()
                await self._worker.rest(self._clock.monotonic() - began)
            else:
                await self._worker.learn(Batch(filled.rows, filled.seconds + looked_s, filled.wal_bytes), began=began)
            if filled is not None:
                rows += filled.rows
            if filled is not None or exact:
                lo = edge

    def _explained(self, swept: _Sweep) -> str:
        reasons = []
        if swept.unfillable:
            reasons.append(
                f"{swept.unfillable} rows stay pending because SET leaves them so; where that is meant, add to WHERE: "
                f"{extra_condition(self._plan.statements.stays_pending)}"
            )
        others = swept.left - swept.unfillable
        if others > 0:
            reasons.append(
                f"{others} rows are pending again or still: SET leaves them so, or the application writes such rows"
            )
        return "; ".join(reasons)


async def still_pending(worker: BatchWorker) -> int:
    """How many rows in quarantine are still pending: others may have been mended, or are gone.

    One for which that cannot be told counts as pending. Raises as `BatchWorker.carry_out` does.
    """

    async def held(session: BatchSession, _: Timeouts) -> list[Key]:
        rows = await quarantine.listed(session.session, worker.position.id)
        return [from_text(row.poison.key) for row in rows]

    async def counted(key: Key, session: BatchSession, timeouts: Timeouts) -> int:
        try:
            return (await session.count(key, key, timeouts, exact=True)).rows
        except psycopg.Error as error:
            if not poisonous(error):
                raise
            await session.rollback()
            return 1

    return sum([await worker.carry_out(partial(counted, key)) for key in await worker.carry_out(held)])
