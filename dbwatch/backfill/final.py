"""The final scan: walks the table once more, counts what is still pending, and fills what can be filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import psycopg

from dbwatch.backfill import quarantine
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.hunt import Hunt, Hunter
from dbwatch.backfill.keys import Key
from dbwatch.backfill.notes import extra_condition
from dbwatch.backfill.pace import Batch
from dbwatch.backfill.pages import VERSION
from dbwatch.backfill.part import Filled, Part, Pending, Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.trouble import poisonous
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock
from dbwatch.postgres.session import describe

FIRST_KEYS, LEAST_KEYS, MOST_KEYS = 2_000, 200, 200_000
"""Keys that one question of the scan covers: the first one, and the bounds; between them the target time decides."""
GLANCE_MS, GLANCE_ROWS = 2_000, 5_000_000
"""How long one look at a whole table may hold its snapshot, and the rows up to which that is worth a try."""
GLANCES = 3
"""So many in a row, the rows that one sees being filled before the next."""
FOUND_MOST, SCATTERED = 10_000, 1_000
"""Rows that are filled where a glance sees them, more of them are scanned for; and at a time: each is on a page of its
own."""
STARE_MS = 30_000
"""The same for a table without a key, which nothing else proves complete."""
SWEEPS = 10
"""Passes over the pages of such a table: in each rows may move past it that somebody else updates."""


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
    """Rows may be pending behind the cursor: written there since, moved past a walk by pages, or left so by SET itself.

    One look at the whole table in one snapshot tells at once where there is none, if that takes no longer than a
    transaction may last. The few that a walk by pages was moved past are filled where the look sees them, and another
    one follows. Else the table is scanned by keys, and by pages for rows without a key. The first scan fills what it
    finds. Where it found some, another look tells, or a second scan does the same, and the last only counts; without
    the text of what stays pending (`Fragments.stays_pending`) rows cannot be told apart, and the second one counts.
    What is in quarantine is left out; a row that cannot take its value and is not there yet comes there: one behind the
    cursor, one that a walk by pages left, or one without a key, under the name of its version.
    """

    def __init__(self, worker: BatchWorker, hunter: Hunter, plan: Plan, reporter: Reporter, clock: Clock) -> None:
        self._worker = worker
        self._hold = worker.hold
        self._hunter = hunter
        self._plan = plan
        self._reporter = reporter
        self._clock = clock
        self._keys = FIRST_KEYS
        self.unfillable = 0
        """Rows that SET leaves pending, once it has run."""
        self.held = 0
        """Rows in quarantine that are still pending, once it has run."""

    async def run(self) -> tuple[int, str]:
        """The rows still pending, without those in quarantine, and why, in one sentence.

        Raises as `BatchWorker.carry_out` does.
        """
        self._reporter.checking = True
        self._hunter.tell()
        left, note = await self._scanned()
        self.held, changed = await still_pending(self._worker, self._plan.statements)
        if changed and not left:  # who changed a row in quarantine may have done so behind the last look
            left, note = await self._stared()
        return left, note

    async def _scanned(self) -> tuple[int, str]:
        keyless = not self._plan.key
        if await self._clear():
            return 0, ""
        fills = SWEEPS if keyless else 2 if self._plan.statements.stays_pending is not None else 1
        swept = await self._sweep(fill=True)
        for scan in range(1, fills + 1):
            if not swept.filled:
                break
            if not swept.left and await self._clear():
                return 0, ""
            swept = await self._sweep(fill=scan < fills)
        self.unfillable = swept.unfillable
        if not swept.left and (keyless or self._plan.nullable):
            return await self._stared()
        return swept.left, self._explained(swept)

    async def _clear(self) -> bool:
        """Whether glances at the whole table prove that no row is pending, where a few were, once those are filled;
        False, too, where one takes too long."""
        if not self._plan.key or self._plan.rows_estimate > GLANCE_ROWS:
            return False
        fills = self._plan.by_pages and self._plan.statements.stays_pending is not None
        for _ in range(GLANCES):
            found = await self._seen(GLANCE_MS, FOUND_MOST + 1 if fills else 1)
            if found == []:
                self._reporter.remaining = 0
                return True
            if isinstance(found, psycopg.Error) or not fills or len(found) > FOUND_MOST:
                return False
            if not await self._fill_found(found):
                return False
        return False

    async def _seen(self, within_ms: int, most: int) -> list[Key] | psycopg.Error:
        """The versions of *most* pending rows that a look at the whole table sees; the error where it takes longer, or
        where for a row it cannot be told."""
        statements = self._plan.statements.sparing(self._hunter.spared_by)

        async def looked(session: BatchSession, timeouts: Timeouts) -> list[Key] | psycopg.Error:
            try:
                return await session.found(statements, most, Timeouts(timeouts.lock_ms, within_ms))
            except psycopg.Error as error:
                if not isinstance(error, psycopg.errors.QueryCanceled) and not poisonous(error):
                    raise
                await session.rollback()
                return error

        return await self._worker.carry_out(looked)

    async def _fill_found(self, found: list[Key]) -> bool:
        """Fills what is still pending where *found* was seen; False where one cannot take its value, or SET left all
        so."""
        rows, places = 0, [place for place, *_ in found]
        while places:
            began, size = self._clock.monotonic(), min(SCATTERED, self._worker.pace.size)
            filled = await self._worker.carry_out(partial(self._fill_at, places[:size]))
            if filled is None:
                return False
            rows, places = rows + filled.rows, places[size:]
            batch = Batch(filled.rows, filled.seconds, filled.wal_bytes, heaviest=False)
            await self._worker.learn(batch, began=began)
        return rows > 0

    async def _fill_at(self, places: list[str], session: BatchSession, timeouts: Timeouts) -> Filled | None:
        at, statements = self._hold.position, self._plan.statements.sparing(self._hunter.spared_by)
        part = Part(statements.at(places), None, (), 0, at.cursor, fillable=True)
        try:
            filled = await session.fill(at, part, timeouts)
        except psycopg.Error as error:
            if not self._hunter.deals_with(error):
                raise
            await session.rollback()  # the scan by keys finds the row, and sets it aside
            return None
        self._hold.position = at.after(rows=filled.rows, keys=0, cursor=part.next)
        return filled

    async def _stared(self) -> tuple[int, str]:
        """What a look at the whole table says, after scans by pages found nothing, which may miss a row."""
        seen = await self._seen(STARE_MS, 1)
        if isinstance(seen, psycopg.errors.QueryCanceled):
            return 0, "rows without a key that were moved while they were looked for may have been missed"
        if isinstance(seen, psycopg.Error):
            return 1, f"of at least one row it cannot be told whether it is pending: {describe(seen)}"
        if seen:
            return 1, "at least one row is pending again: the application writes such rows; run it again"
        return 0, ""

    async def _sweep(self, *, fill: bool) -> _Sweep:
        swept = _Sweep()
        if self._plan.key:  # all partitions at once, those too that came since
            swept = await self._swept(self._plan.statements, swept, fill=fill)
        for leg in self._plan.legs:
            if leg.keyless or self._plan.nullable:
                swept = await self._swept(leg.beside_keys, swept, fill=fill)
        return swept

    async def _swept(self, statements: Statements, swept: _Sweep, *, fill: bool) -> _Sweep:
        """*swept* with what one scan of *statements* finds."""
        lo, top = None, None
        if statements.pages is not None:
            top = await self._worker.carry_out(lambda session, timeouts: session.top(statements, timeouts))
        while True:
            chunk = await self._worker.carry_out(partial(self._chunk, statements, lo, top, fill))
            if chunk is None:
                return swept
            lo = chunk.hi
            swept = _Sweep(swept.left + chunk.left, swept.unfillable + chunk.unfillable, swept.filled + chunk.filled)
            self._reporter.remaining = swept.left
            self._hunter.tell()
            await self._worker.rest(chunk.seconds)

    async def _chunk(
        self,
        statements: Statements,
        lo: Key | None,
        top: Key | None,
        fill: bool,
        session: BatchSession,
        timeouts: Timeouts,
    ) -> _Chunk | None:
        keys = self._keys
        hi, looked_s = await session.edge(statements, lo, top, keys, timeouts)
        if hi is None:
            return None
        pending, filled = await self._counted(statements, lo, hi, session, timeouts)
        seconds = looked_s + pending.seconds
        fitting = self._keys * self._worker.pace.target_s / max(seconds, 1e-4)
        self._keys = round(min(MOST_KEYS, max(LEAST_KEYS, min(2 * self._keys, fitting))))
        left = pending.rows
        if fill and pending.rows > pending.unfillable:
            held = self._reporter.quarantined
            now = await self._fill(statements, lo, hi, session, timeouts, keys_each=keys / pending.rows)
            left = max(0, left - now - (self._reporter.quarantined - held))
            filled += now
        return _Chunk(hi, seconds, left, pending.unfillable, filled)

    async def _counted(
        self, statements: Statements, lo: Key | None, hi: Key, session: BatchSession, timeouts: Timeouts
    ) -> tuple[Pending, int]:
        """What is pending, and how many rows were filled because of one for which that could not even be told."""
        filled = 0
        while True:
            held = self._reporter.quarantined
            try:
                return await session.count(statements.sparing(self._hunter.spared_by), lo, hi, timeouts), filled
            except psycopg.Error as error:
                if not self._hunter.deals_with(error):
                    raise
                await session.rollback()
                filled += await self._fill(statements, lo, hi, session, timeouts)
                if self._reporter.quarantined == held:
                    raise

    async def _fill(
        self,
        statements: Statements,
        lo: Key | None,
        hi: Key,
        session: BatchSession,
        timeouts: Timeouts,
        *,
        keys_each: float = 1.0,
    ) -> int:
        """Fills what SET clears above *lo* up to *hi*, in batches as the pace allows; one in *keys_each* is pending."""
        rows, self._hunter.hunt = 0, Hunt()
        while True:
            await self._worker.may_go()
            began, most, hunting = self._clock.monotonic(), self._worker.pace.size, self._hunter.hunt.on
            take = min(most, self._hunter.hunt.take) if hunting else round(most * keys_each)
            edge, looked_s = await session.edge(statements, lo, hi, take, timeouts)
            if edge is None:
                return rows
            pages = statements.pages
            if hunting and pages is not None and (take == 1 or pages.pages_of(take) == 1):
                before, held = self._hunter.hunt, self._reporter.quarantined
                rows += await self._fill_each(statements, lo, edge, session, timeouts)
                there = pages.rows_of(lo, edge)
                aside = self._reporter.quarantined > held
                self._hunter.hunt = Hunt(there) if aside else before.passed(max(take, there), most)
                lo = edge
                continue
            exact, taken = take == 1 and statements.pages is None, statements.sparing(self._hunter.spared_by)
            if exact:
                taken = taken.alone()
            part = Part(taken, lo, edge, 0, self._hold.position.cursor, fillable=True)
            filled = await self._hunter.fill(session, part, take, most, timeouts)
            if filled is None or hunting:
                self._hunter.tell()
                await self._worker.rest(self._clock.monotonic() - began)
            else:
                dense = keys_each < 2  # else it tells what a look costs, not a row
                batch = Batch(filled.rows, filled.seconds + looked_s, filled.wal_bytes, heaviest=dense)
                await self._worker.learn(batch, began=began)
            if filled is not None:
                rows += filled.rows
            if filled is not None or exact:
                lo = edge

    async def _fill_each(
        self, statements: Statements, lo: Key | None, hi: Key, session: BatchSession, timeouts: Timeouts
    ) -> int:
        """Fills one after the other the rows above *lo* up to *hi*, few pages in which one cannot take its value."""
        rows = 0
        for version in await session.standing(statements, lo, hi, timeouts):
            await self._worker.may_go()
            began, taken = self._clock.monotonic(), statements.sparing(self._hunter.spared_by).version()
            part = Part(taken, None, version, 0, self._hold.position.cursor, fillable=True)
            filled = await self._hunter.fill(session, part, 1, self._worker.pace.size, timeouts)
            rows += 0 if filled is None else filled.rows
            self._hunter.tell()
            await self._worker.rest(self._clock.monotonic() - began)
        return rows

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


async def still_pending(worker: BatchWorker, statements: Statements) -> tuple[int, bool]:
    """How many rows in quarantine are still pending: others may have been mended, or are gone; and whether one of those
    was there under its version: it may be pending under another.

    One for which that cannot be told counts as pending. Raises as `BatchWorker.carry_out` does.
    """

    async def held(session: BatchSession, _: Timeouts) -> list[str]:
        rows = await quarantine.listed(session.session, worker.hold.position.id)
        return [row.poison.key for row in rows]

    async def counted(name: str, session: BatchSession, timeouts: Timeouts) -> int:
        one, key = statements.one(name)
        try:
            return (await session.count(one, None, key, timeouts)).rows
        except psycopg.Error as error:
            if not poisonous(error):
                raise
            await session.rollback()
            return 1

    rows, changed = 0, False
    for name in await worker.carry_out(held):
        pending = await worker.carry_out(partial(counted, name))
        rows += pending
        changed = changed or (not pending and statements.one(name)[0].one_by == VERSION)
    return rows, changed
