"""Walks a table to its end, leg by leg and window by window, each batch the next from where the cursor stands."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.backfill import row
from dbwatch.backfill.batch import BatchSession, Part, Timeouts
from dbwatch.backfill.cursor import Cursor, Window
from dbwatch.backfill.hunt import Hunter
from dbwatch.backfill.keys import Key
from dbwatch.backfill.legs import Leg, resumed
from dbwatch.backfill.pace import MOST, Batch
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
            batch = await self._worker.learn(walked.batch, began=began)
            if (walked.of > 1) == (passes > 1):
                working_s = batch.seconds - batch.waited_s
                self._chooser = self._chooser.after(
                    batch.rows, walked.keys, working_s, walked.hot, ends=walked.ends
                )  # fmt: skip

    def _told(self, passes: int) -> Walk:
        if passes > 1:
            return Walk.STRIPES
        return Walk.PAGES if self._plan.by_pages else Walk.KEYSET

    async def _batch(self, session: BatchSession, timeouts: Timeouts) -> _Walked | _Otherwise | None:
        """One batch from where the cursor stands; None where nothing is above it."""
        at, n, began = self._worker.position, self._worker.pace.size, self._clock.monotonic()
        if at.walked:
            return None
        legs, place = resumed(self._plan.legs, self._place(at))
        if not legs:
            await row.note_walked(session.session, at)
            return None
        leg, statements = legs[0], legs[0].statements
        looked_s = 0.0
        if place.window is None:
            opened, looked_s = await self._opened(session, leg, place, n, timeouts)
            if opened is None:
                if len(legs) == 1:
                    await row.note_walked(session.session, at)
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
        if hunting or most < _ALL_BUT * take:  # the pace has slowed since the window was opened
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
        return _Walked(batch, keys, filled.hot, window.of, after.window is None)

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
