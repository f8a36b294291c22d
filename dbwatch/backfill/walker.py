"""Walks a table to its end, leg by leg and window by window, each batch the next from where the cursor stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg

from dbwatch.backfill import row
from dbwatch.backfill.batch import BatchSession, Part, Timeouts
from dbwatch.backfill.cursor import Cursor, Window
from dbwatch.backfill.hunt import Hunter
from dbwatch.backfill.keys import Key
from dbwatch.backfill.legs import Leg, resumed
from dbwatch.backfill.pace import FULL, MOST, Batch
from dbwatch.backfill.passes import share
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.row import Position
from dbwatch.backfill.walk import WINDOW_MOST, Chooser, Walk
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock


@dataclass(frozen=True, slots=True)
class _Walked:
    """A committed batch of the walk."""

    batch: Batch
    keys: int
    """That it took."""
    hot: float | None
    of: int
    """Passes of the window that it is in."""
    ends: bool
    """That window ended with it."""


@dataclass(frozen=True, slots=True)
class _Otherwise:
    """A step that says nothing of a batch: of a hunt, from one leg to the next, or past what the final scan will do."""

    seconds: float


_ALL_BUT = 0.8
"""A pass is split where it is that much larger than a batch may be."""


class Walker:
    """One walk of a plan, by one worker."""

    def __init__(self, worker: BatchWorker, hunter: Hunter, plan: Plan, reporter: Reporter, clock: Clock) -> None:
        self._worker = worker
        self._hunter = hunter
        self._plan = plan
        self._reporter = reporter
        self._clock = clock
        self._chooser = Chooser.starting(plan.spec.walk, plan.why_plain)
        self._tops: dict[str, Key | None] = {}
        self._light_s = 0.0
        """What the last pass of a window took that was not its first; 0: there was none yet."""
        self._singly: Key | None = None
        """The end of the window in which one of several passes failed: there they go one by one."""
        self._ahead: tuple[str | None, Cursor] | None = None
        """A cursor of the journal's, and where it has us stand: there, or past it without having written anything."""

    async def run(self) -> None:
        """Walks from where the cursor stands to the end. Raises as `BatchWorker.carry_out` does."""
        while not self._worker.position.walked:
            passes = self._chooser.passes
            most = round(WINDOW_MOST * share(passes)) if passes > 1 else MOST
            self._worker.pace = self._worker.pace.at_most(most)
            self._reporter.walk = self._told(passes)
            self._reporter.hot = self._chooser.hot
            began = self._clock.monotonic()
            walked = await self._worker.carry_out(self._batch)
            if walked is None:
                return
            if isinstance(walked, _Otherwise):
                self._hunter.tell()
                await self._worker.rest(walked.seconds)
                continue
            batches = await self._worker.learn(*(one.batch for one in walked), began=began)
            for one, batch in zip(walked, batches, strict=True):
                if (one.of > 1) == (passes > 1):
                    working_s = batch.seconds - batch.waited_s
                    self._chooser = self._chooser.after(batch.rows, one.keys, working_s, one.hot, ends=one.ends)
                if not batch.heaviest:
                    self._light_s = batch.seconds

    def _told(self, passes: int) -> Walk:
        if passes > 1:
            return Walk.STRIPES
        return Walk.PAGES if self._plan.by_pages else Walk.KEYSET

    async def _batch(self, session: BatchSession, timeouts: Timeouts) -> list[_Walked] | _Otherwise | None:
        """One batch from where the cursor stands, or several light ones; None where nothing is above it."""
        at, n, began = self._worker.position, self._worker.pace.size, self._clock.monotonic()
        if at.walked:
            return None
        legs, place = resumed(self._plan.legs, self._place(at))
        if not legs:
            await self._note_walked(session, at)
            return None
        leg, statements = legs[0], legs[0].statements
        looked_s = 0.0
        if place.window is None:
            opened, looked_s = await self._opened(session, leg, place, n, timeouts)
            if opened is None:
                if len(legs) == 1:
                    await self._note_walked(session, at)
                    return None
                self._ahead = at.cursor, Cursor(leg=legs[1].name)
                return _Otherwise(0.0)
            place = opened
        window = place.window
        assert window is not None
        hi, take, exact = window.hi, window.keys, False
        allowed = round(n / share(window.of, window.number))
        hunting = self._hunter.hunt.on and not leg.by_pages
        most = min(allowed, self._hunter.hunt.take) if hunting else allowed
        slowed = most < _ALL_BUT * take  # since the window was opened
        if not (hunting or slowed or self._singly == window.hi) and self._lights(place) > 1:
            return await self._light_passes(session, leg, place, timeouts)
        if hunting or slowed:
            found, more_s = await session.edge(statements, place.after, window.hi, most, timeouts)
            hi, take, looked_s = found or window.hi, most, looked_s + more_s
            exact = take == 1 and found is not None and not leg.by_pages
        after, keys = place.passed(hi), max(1, round(take * share(window.of, window.number)))
        told = max(0, min(keys, self._plan.rows_estimate - at.scanned))
        lo = hi if exact else place.after
        if exact:
            statements = statements.alone()
        part = Part(statements, lo, hi, told, after.to_text(), window.number, window.of)
        if leg.by_pages:
            filled = await self._hunter.fill_or_leave(session, part, timeouts)
            if filled is None:
                self._ahead = at.cursor, after
        else:
            filled = await self._hunter.fill(session, part, take, allowed, timeouts)
        if filled is None or hunting:
            return _Otherwise(self._clock.monotonic() - began)
        self._ahead = part.next, after
        heaviest = window.number == 0
        batch = Batch(filled.rows, filled.seconds + looked_s, filled.wal_bytes, heaviest=heaviest)
        return [_Walked(batch, keys, filled.hot, window.of, after.window is None)]

    async def _note_walked(self, session: BatchSession, at: Position) -> None:
        await row.note_walked(session.session, at)
        self._worker.position = replace(at, walked=True)

    def _lights(self, place: Cursor) -> int:
        """How many of the light passes over the present window fit into the time of a batch; 0 before the first."""
        window = place.window
        if window is None or window.number == 0 or window.at is not None or not self._light_s:
            return 0
        fit = int(FULL * self._worker.pace.target_s / self._light_s)
        return min(fit, window.of - window.number)

    async def _light_passes(
        self, session: BatchSession, leg: Leg, place: Cursor, timeouts: Timeouts
    ) -> list[_Walked] | _Otherwise:
        """The next passes over the present window in one message, each committed by itself: a pass is short, and our
        side would take longer between two of them than it may."""
        at, left = self._worker.position, self._plan.rows_estimate
        parts: list[Part] = []
        ends: list[tuple[int, bool]] = []
        for _ in range(self._lights(place)):
            window = place.window
            assert window is not None
            after, keys = place.passed(window.hi), max(1, round(window.keys * share(window.of, window.number)))
            told = max(0, min(keys, left - at.scanned - sum(part.keys for part in parts)))
            parts.append(Part(leg.statements, place.lo, window.hi, told, after.to_text(), window.number, window.of))
            ends.append((keys, after.window is None))
            place = after
        began = self._clock.monotonic()
        try:
            filled = await session.fill_each(at, parts, timeouts)
        except psycopg.Error as error:
            await self._worker.stand_again(session)
            self._singly = parts[0].hi
            if self._hunter.deals_with(error):
                return _Otherwise(self._clock.monotonic() - began)
            raise
        for part, one in zip(parts, filled, strict=True):
            self._worker.position = self._worker.position.after(rows=one.rows, keys=part.keys, cursor=part.next)
        self._ahead = parts[-1].next, place
        return [
            _Walked(Batch(one.rows, one.seconds, one.wal_bytes, heaviest=False), keys, one.hot, part.of, over)
            for part, one, (keys, over) in zip(parts, filled, ends, strict=True)
        ]

    def _place(self, at: Position) -> Cursor:
        """Where we stand; after a failover it may be where we were before."""
        if self._ahead is not None and self._ahead[0] == at.cursor:
            return self._ahead[1]
        return at.place

    async def _opened(
        self, session: BatchSession, leg: Leg, place: Cursor, n: int, timeouts: Timeouts
    ) -> tuple[Cursor | None, float]:
        """*place* with the next window of *leg*, for batches of *n* rows; None where the leg is done; the seconds."""
        passes = self._chooser.passes
        keys = round(n / share(passes))
        top, ends = await self._top(session, leg, timeouts)
        if ends:
            return None, 0.0
        hi, looked_s = await session.edge(leg.statements, place.lo, top, keys, timeouts)
        if hi is None:
            return None, looked_s
        if leg.by_pages:
            keys = leg.pages.rows_of(place.lo, hi)
        return place.opened(Window(hi, keys, passes)), looked_s

    async def _top(self, session: BatchSession, leg: Leg, timeouts: Timeouts) -> tuple[Key | None, bool]:
        """Where *leg* ends (None: where its keys do), and whether there is nothing of it to walk."""
        if leg.by_pages:
            if leg.name not in self._tops:  # what we fill goes beyond it, and is done
                self._tops[leg.name] = await session.top(leg.statements, timeouts)
            top = self._tops[leg.name]
            return top, top is None
        top = self._worker.position.top(leg.name)
        return top, top is None and self._plan.spec.mode == "once"
