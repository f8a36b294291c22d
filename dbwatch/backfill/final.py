"""The final scan: walks the table once more by key, counts what is still pending, and fills what can be filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dbwatch.backfill.batch import BatchSession, Part, Timeouts
from dbwatch.backfill.keys import Key
from dbwatch.backfill.pace import Batch
from dbwatch.backfill.plan import Plan, extra_condition
from dbwatch.backfill.report import Reporter
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
    """

    def __init__(self, worker: BatchWorker, plan: Plan, reporter: Reporter, clock: Clock) -> None:
        self._worker = worker
        self._plan = plan
        self._reporter = reporter
        self._clock = clock
        self._keys = FIRST_KEYS

    async def run(self) -> tuple[int, str]:
        """The rows still pending, and why, in one sentence. Raises as `BatchWorker.carry_out` does."""
        self._reporter.checking = True
        fills = 2 if self._plan.statements.stays_pending is not None else 1
        swept = await self._sweep(fill=True)
        for scan in range(1, fills + 1):
            if not swept.filled:
                break
            swept = await self._sweep(fill=scan < fills)
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
        pending = await session.count(lo, hi, timeouts)
        seconds = looked_s + pending.seconds
        fitting = self._keys * self._worker.pace.target_s / max(seconds, 1e-4)
        self._keys = round(min(MOST_KEYS, max(LEAST_KEYS, min(2 * self._keys, fitting))))
        filled = 0
        if fill and pending.rows > pending.unfillable:
            filled = await self._fill(lo, hi, session, timeouts)
        return _Chunk(hi, seconds, max(0, pending.rows - filled), pending.unfillable, filled)

    async def _fill(self, lo: Key | None, hi: Key, session: BatchSession, timeouts: Timeouts) -> int:
        """Fills what SET clears above *lo* up to *hi*, in batches as the pace allows."""
        rows = 0
        while True:
            await self._worker.may_go()
            edge, looked_s = await session.edge(lo, hi, self._worker.pace.size, timeouts)
            if edge is None:
                return rows
            began = self._clock.monotonic()
            at = self._worker.position
            filled = await session.fill(at, Part(lo, edge, 0, at.cursor, fillable=True), timeouts)
            self._worker.position = at.after(rows=filled.rows, keys=0, cursor=at.cursor)
            await self._worker.learn(Batch(filled.rows, filled.seconds + looked_s, filled.wal_bytes), began=began)
            rows += filled.rows
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
