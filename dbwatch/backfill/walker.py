"""Walks a table to its end, leg by leg and window by window, each batch the next from where the cursor stands.

Several workers are given pieces (`together.py`) of which each takes the next one that nobody has (`crew.py`)."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import psycopg

from dbwatch.backfill import row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.crew import Crew
from dbwatch.backfill.cursor import Cursor, Window
from dbwatch.backfill.hunt import Hunter
from dbwatch.backfill.keys import Key
from dbwatch.backfill.legs import Leg, resumed
from dbwatch.backfill.outwaiting import Outwaiting
from dbwatch.backfill.pace import FULL, MOST
from dbwatch.backfill.part import Part, Timeouts
from dbwatch.backfill.passes import PASSES_AMONG_OTHERS, WINDOW_MOST, Light, cuts, share
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.row import Position
from dbwatch.backfill.statements import Statements
from dbwatch.backfill.stretch import Otherwise, Stand, Stretch, Walked, learnt
from dbwatch.backfill.together import WINDOWS_EACH, Cutter
from dbwatch.backfill.walk import STRETCH, Chooser, Walk
from dbwatch.backfill.worker import BatchWorker
from dbwatch.clock import Clock

HELP_AFTER_S = 1.0
"""How long one worker fills alone before another one helps: by then it is seen whether others work on the server, and a
small table is done."""


class Walker:
    """One walk of a plan, by one worker."""

    def __init__(self, worker: BatchWorker, hunter: Hunter, plan: Plan, reporter: Reporter, clock: Clock) -> None:
        self._worker = worker
        self._hold = worker.hold
        self._hunter = hunter
        self._plan = plan
        self._reporter = reporter
        self._clock = clock
        self._chooser = Chooser.starting(plan.spec.walk, plan.why_plain)
        self._tops: dict[str, Key | None] = {}
        self._light = Light()
        self._outwaiting = Outwaiting(worker, clock)
        self._began = clock.monotonic()
        self._singly: Key | None = None
        """The end of the window in which one of several passes failed: there they go one by one."""
        self._unsure = False
        """What others did is known to the row only."""
        self._alone = 0
        """So many batches yet without the others: something failed there."""
        self._ahead: tuple[str | None, Cursor] | None = None
        """A cursor of the journal's, and where it has us stand: there, or past it without having written anything."""

    async def run(self) -> None:
        """Walks from where the cursor stands to the end. Raises as `BatchWorker.carry_out` does."""
        while not self._hold.position.walked:
            passes, now = self._passes, self._chooser.now
            most = round(WINDOW_MOST * share(passes)) if passes > 1 else MOST
            self._worker.pace = self._worker.pace.at_most(most)
            self._reporter.walk = self._told(passes)
            self._reporter.hot = self._chooser.hot
            began = self._clock.monotonic()
            walked = await self._worker.carry_out(self._batch)
            if walked is None:
                break
            if isinstance(walked, Otherwise):
                self._hunter.tell()
                await self._worker.rest(walked.seconds)
                continue
            batches = (one.batch for one in walked.walked)
            learned = await self._worker.learn(*batches, began=began, worked_s=walked.beside_s)
            for one, batch in zip(walked.walked, learned, strict=True):
                if (one.of > 1) == (passes > 1) and self._chooser.now is now:
                    working_s = batch.seconds - batch.waited_s
                    self._chooser = self._chooser.after(batch.rows, one.keys, working_s, one.hot, ends=one.ends)
                if not batch.heaviest:
                    self._light = self._light.after(batch.seconds, one.keys)
        if self._hold.crew is not None:
            await self._hold.crew.disband()

    @property
    def _passes(self) -> int:
        """Over the next window."""
        passes = self._chooser.passes
        return passes if passes == 1 or self._worker.pace.alone else PASSES_AMONG_OTHERS

    def _told(self, passes: int) -> Walk:
        if passes > 1:
            return Walk.STRIPES
        return Walk.PAGES if self._plan.by_pages else Walk.KEYSET

    async def _batch(self, session: BatchSession, timeouts: Timeouts) -> Stretch | Otherwise | None:
        """The next batch from where the cursor stands, or several; None where nothing is above it."""
        if self._unsure:
            await self._hold.again(session)
            self._unsure = False
        at = self._hold.position
        if at.walked:
            return None
        crew = await self._crew()
        if crew is not None and not self._hunter.hunt.on:
            if not self._alone:
                together = await self._fill_together(session, crew, at, timeouts)
                if together is not None:
                    return together
            self._alone = max(0, self._alone - 1)
        stand = await self._stand(session, at, timeouts)
        if stand is None:
            await row.note_walked(session.session, at)
            self._hold.position = replace(at, walked=True)
            return None
        if isinstance(stand, Otherwise):
            return stand
        if stand.window.of > 1:
            await self._outwaiting.analyze(session, stand.leg.statements, seen=session.analyzed)
            if not self._worker.goes_on:
                return Otherwise(0.0)
        lights = self._lights(stand)
        if lights > 1:
            return await self._fill_lights(session, stand, lights, timeouts)
        return await self._fill_one(session, stand, timeouts)

    async def _crew(self) -> Crew | None:
        """Those who fill beside us now. Where nobody said how many, one does in stripes, while nobody else works there
        and no person has made it slower."""
        if self._hold.crew is None or self._plan.spec.workers is not None:
            return self._hold.crew
        pace, filled_s = self._worker.pace, self._clock.monotonic() - self._began
        if pace.alone and pace.level >= 0 and filled_s >= HELP_AFTER_S:
            return self._hold.crew if self._chooser.passes > 1 else None
        await self._hold.crew.disband()
        return None

    async def _stand(self, session: BatchSession, at: Position, timeouts: Timeouts) -> Stand | Otherwise | None:
        """Where the walk goes on, with a window that is open; past the end of a leg there is none yet, and None where
        that was the last one."""
        legs, place = resumed(self._plan.legs, self._place(at))
        if not legs:
            return None
        looked_s = 0.0
        if place.window is None:
            opened, looked_s = await self._opened(session, legs[0], place, timeouts)
            if opened is None:
                if len(legs) == 1:
                    return None
                self._ahead = at.cursor, Cursor(leg=legs[1].name)
                return Otherwise(0.0)
            place = opened
        return Stand(legs[0], place, looked_s)

    def _allowed(self, window: Window) -> int:
        """How many of the window's keys may be walked for one batch, of which a pass takes its share."""
        own, pace = float(self._worker.pace.size), self._worker.pace
        if window.number and self._light.longest:
            own = max(own, FULL * pace.target_s / self._light.longest)
        return round(own / share(window.of, window.number))

    def _taken(self, stand: Stand) -> int | None:
        """How many of them the next batch walks; None: all that are left of the window."""
        window, allowed = stand.window, self._allowed(stand.window)
        if self._hunts(stand.leg):
            return min(allowed, self._hunter.hunt.take)
        by_pages = stand.leg.by_pages
        left = stand.leg.pages.rows_of(stand.place.after, window.hi) if by_pages else window.keys
        batches = cuts(left, allowed)
        return math.ceil(left / batches) if batches > 1 else None

    def _hunts(self, leg: Leg) -> bool:
        return self._hunter.hunt.on and not leg.by_pages

    async def _fill_one(self, session: BatchSession, stand: Stand, timeouts: Timeouts) -> Stretch | Otherwise:
        """The next batch of the present window: the pass under way, or a piece of it."""
        began, at = self._clock.monotonic(), self._hold.position
        leg, place, window, looked_s = stand.leg, stand.place, stand.window, stand.looked_s
        lo, hi, take, statements = place.after, window.hi, window.keys, leg.statements
        taken, hunting = self._taken(stand), self._hunts(leg)
        if taken is not None:
            found, more_s = await session.edge(statements, place.after, window.hi, taken, timeouts)
            hi, take, looked_s = found or window.hi, taken, looked_s + more_s
            if take == 1 and found is not None and not leg.by_pages:
                statements = statements.alone()
        after = place.passed(hi)
        part, keys = self._part(at.scanned, statements, lo, hi, take, window, after)
        if leg.by_pages:
            filled = await self._hunter.fill_or_leave(session, part, timeouts)
            if filled is None:
                self._ahead = at.cursor, after
        else:
            filled = await self._hunter.fill(session, part, take, self._allowed(window), timeouts)
        if filled is None or hunting:
            return Otherwise(self._clock.monotonic() - began + stand.looked_s)
        self._ahead = part.next, after
        batch = learnt(part, keys, filled, looked_s=looked_s)
        return Stretch([Walked(batch, keys, filled.hot, window.of, after.window is None)])

    def _part(
        self, scanned: int, statements: Statements, lo: Key | None, hi: Key, take: int, window: Window, after: Cursor
    ) -> tuple[Part, int]:
        """What a batch of *take* keys of *window* is, and how many of them are its own; *scanned* were passed before.

        As many count as passed as the estimate has left: it never goes beyond the whole.
        """
        keys = max(1, round(take * share(window.of, window.number)))
        told = max(0, min(keys, self._plan.rows_estimate - scanned))
        return Part(statements, lo, hi, told, after.to_text(), window.number, window.of), keys

    def _lights(self, stand: Stand) -> int:
        """How many of the light passes over the present window fit into the time of a message; 0 before the first, and
        where it is not passed over as a whole."""
        window = stand.window
        if window.number == 0 or window.at is not None:
            return 0
        if self._singly == window.hi or self._taken(stand) is not None:
            return 0
        fit = self._light.fit(FULL * self._worker.pace.message_s, window.keys * share(window.of, window.number))
        return min(fit, window.of - window.number)

    async def _fill_lights(
        self, session: BatchSession, stand: Stand, count: int, timeouts: Timeouts
    ) -> Stretch | Otherwise:
        """The next *count* passes over the present window in one message, each committed by itself: a pass is short,
        and our side would take longer between two of them than it may."""
        at, place, statements = self._hold.position, stand.place, stand.leg.statements
        scanned = at.scanned
        parts: list[Part] = []
        ends: list[tuple[int, bool]] = []
        for _ in range(count):
            window = place.window
            assert window is not None
            after = place.passed(window.hi)
            part, keys = self._part(scanned, statements, place.lo, window.hi, window.keys, window, after)
            parts.append(part)
            ends.append((keys, after.window is None))
            place, scanned = after, scanned + part.keys
        began = self._clock.monotonic()
        try:
            filled = await session.fill_each(at, parts, timeouts)
        except psycopg.Error as error:
            await self._hold.again(session)
            self._singly = parts[0].hi
            if self._hunter.deals_with(error):
                return Otherwise(self._clock.monotonic() - began)
            raise
        for part, one in zip(parts, filled, strict=True):
            self._hold.position = self._hold.position.after(rows=one.rows, keys=part.keys, cursor=part.next)
        self._ahead = parts[-1].next, place
        walked = [
            Walked(learnt(part, keys, one), keys, one.hot, part.of, over)
            for part, one, (keys, over) in zip(parts, filled, ends, strict=True)
        ]
        return Stretch(walked)

    async def _fill_together(
        self, session: BatchSession, crew: Crew, at: Position, timeouts: Timeouts
    ) -> Stretch | Otherwise | None:
        """What the crew fills above the cursor for TOGETHER_S; None where it could not begin.

        The cursor moves past all that is filled without a gap. Where a piece failed we go alone as far as they went,
        and deal with whatever that was.
        """
        legs, place = resumed(self._plan.legs, self._place(at))
        if not legs or place.window is not None:
            return None
        leg, began, passes = legs[0], self._clock.monotonic(), self._passes
        top, ends = await self._top(session, leg, timeouts)
        if ends:
            return None
        hands = crew.hands

        async def wait() -> None:
            await self._outwaiting.analyze(session, leg.statements, seen=crew.analyzed)

        cutter = Cutter(
            session, self._worker, self._clock, timeouts, leg,
            lo=place.lo, top=top, passes=passes, light=self._light, hands=hands, most=self._rounds(passes, hands),
            wait=wait if passes > 1 else None,
        )  # fmt: skip
        self._unsure = True
        pieces = await crew.fill(at, cutter.cut, session.images, timeouts)
        took_s, passed, done = self._clock.monotonic() - began, cutter.passed(), cutter.done()
        failed = any(piece.filled is None for piece in pieces)
        rest = sum(len(piece.parts) for piece in pieces) - sum(len(p.parts) for each in passed for p in each.pieces)
        self._alone = rest if failed else 0
        self._unsure = rest > 0
        if not done:
            return Otherwise(took_s) if pieces or not self._worker.goes_on else None
        rows, batches = at.rows_done + sum(filled.rows for *_, filled in done), at.batches + len(done)
        self._hold.position = replace(at, rows_done=rows, batches=batches)
        if passed:
            edge, keys = Cursor(passed[-1].hi, leg=leg.name), sum(each.keys for each in passed)
            scanned = max(0, min(keys, self._plan.rows_estimate - at.scanned))
            if not await row.move(session.session, at, edge.to_text(), scanned):
                self._unsure = True  # a message of ours that nobody heard of any more came in late
                return Otherwise(took_s)
            self._hold.position = replace(self._hold.position, cursor=edge.to_text(), scanned=at.scanned + scanned)
            self._ahead = edge.to_text(), edge
        beside = min(1.0, took_s / max(1e-9, sum(filled.seconds for *_, filled in done)))
        walked = [  # the WAL of them all is in the figure of each
            Walked(learnt(part, keys, one, beside=beside), keys, one.hot, part.of, part.number == part.of - 1)
            for part, keys, one in done
        ]
        return Stretch(walked, took_s)

    def _rounds(self, passes: int, hands: int) -> int:
        """How many rounds a stretch may have at most: few where something is to be learnt from it."""
        if self._chooser.looking:
            return STRETCH if passes == 1 else 1
        if len(self._worker.pace.recent) < hands * WINDOWS_EACH:
            return hands if passes == 1 else 1
        return sys.maxsize

    def _place(self, at: Position) -> Cursor:
        """Where we stand; after a failover it may be where we were before."""
        if self._ahead is not None and self._ahead[0] == at.cursor:
            return self._ahead[1]
        return at.place

    async def _opened(
        self, session: BatchSession, leg: Leg, place: Cursor, timeouts: Timeouts
    ) -> tuple[Cursor | None, float]:
        """*place* with the next window of *leg*, and the seconds; None: the leg is done."""
        passes = self._passes
        pace = self._worker.pace
        keys = self._light.window(pace.size, passes, pace.target_s, pace.lighter)
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
        top = self._hold.position.top(leg.name)
        return top, top is None and self._plan.spec.mode == "once"
