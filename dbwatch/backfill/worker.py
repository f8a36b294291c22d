"""Carries work out in spite of what happens: waits while it may not go, tries again what can be tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from dbwatch.backfill import row
from dbwatch.backfill.answer import answer
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.control import Control, StopRequested
from dbwatch.backfill.feeling import Feeling
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.orders import LOOK_EVERY_S, Orders
from dbwatch.backfill.pace import Batch, Pace
from dbwatch.backfill.part import Timeouts
from dbwatch.backfill.progress import State
from dbwatch.backfill.report import Reporter, why_slow
from dbwatch.backfill.trouble import EXPECTED, Trouble, judge, sentence
from dbwatch.backfill.watch import Watch
from dbwatch.errors import DbwatchError
from dbwatch.journal import SCHEMA

T = TypeVar("T")

BEAT_EVERY_S = 5.0
"""How often the row says that we are there while no batch says so."""
PATIENCE_S = 600.0
"""How long a server may be away, full or too slow for the smallest batch before we give up."""
SHORTEST_REST_S = 0.01
"""Shorter rests are saved up: a loop's timer is no finer than a millisecond, and each of them costs our side more."""


@asynccontextmanager
async def at_work(
    hold: Hold,
    *,
    control: Control,
    reporter: Reporter,
    thresholds: Thresholds,
    orders: Orders | None = None,
) -> AsyncIterator[BatchWorker]:
    """A worker that goes on with what we *hold*, and its watch, both ended in the end.

    *orders* from another terminal are obeyed where they are given.
    """
    plan, clock = hold.plan, hold.clock
    thresholds = thresholds.without(plan.unheeded)
    walked = (plan.statements.schema, plan.statements.table)
    # The way back walks along our own before-images: what becomes of those harms nobody.
    watch = Watch(hold.connector, clock, thresholds, table=None if plan.statements.schema == SCHEMA else walked)
    watching = asyncio.create_task(watch.run(), name="backfill watch")
    worker = BatchWorker(
        hold,
        control=control,
        reporter=reporter,
        watch=watch,
        watching=watching,
        thresholds=thresholds,
        orders=orders,
    )
    reporter.began(hold.position)
    try:
        await watch.look()
        yield worker
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=1.0)
        await worker.disconnect()


class BatchWorker:
    """Who does one run's work, at its pace."""

    def __init__(
        self,
        hold: Hold,
        *,
        control: Control,
        reporter: Reporter,
        watch: Watch,
        watching: asyncio.Task[None],
        thresholds: Thresholds,
        orders: Orders | None,
    ) -> None:
        plan, clock = hold.plan, hold.clock
        self.hold = hold
        self.pace = Pace.starting(plan.spec.batch_time_ms / 1000, plan.spec.rows_per_second)
        self._orders = orders
        self._plan = plan
        self._clock = clock
        self._control = control
        self._reporter = reporter
        self._watch = watch
        self._watching = watching
        self._felt = Feeling(watch, thresholds, clock, control, reporter, hold.cancel)
        self._beat_at = clock.monotonic()
        self._trouble_since: float | None = None
        self._owed_s = 0.0
        """Rest that the duty asked for, and that was not taken yet."""
        hold.changed = self._told_who
        self._told_who()

    async def carry_out(self, work: Callable[[BatchSession, Timeouts], Awaitable[T]], *, last_words: bool = False) -> T:
        """The result of *work*, begun when it may go and begun again after each trouble that can be outlived.

        *last_words* go whatever the gate and a person say. Raises StopRequested, Fenced where somebody took over, and
        DbwatchError where it would fail again.
        """
        failures = 0
        while True:
            if not last_words:
                await self.may_go()
            spec = self._plan.spec
            target_s, lasts = self.pace.target_s, not self.pace.alone
            timeouts = Timeouts.of(target_s, spec.lock_timeout_ms, spec.statement_timeout_ms, lasts=lasts)
            began = self._clock.monotonic()
            try:
                session = await self.hold.connected()
                self._felt.begin(cancellable=not last_words)
                result = await work(session, timeouts)
            except EXPECTED as error:
                failures += 1
                ran_s = self._clock.monotonic() - began
                trouble = judge(error, ran_s=ran_s, statement_timeout_s=timeouts.statement_ms / 1000)
                await self._recover(trouble, error, failures)
                if self._control.stopping:
                    raise StopRequested from None
            else:
                self._trouble_since = None
                return result
            finally:
                self._felt.under_way = False

    @property
    def goes_on(self) -> bool:
        """Whether a further batch may begin, as far as is known at this instant."""
        return self._felt.allows and not self._control.stopping and self._control.paused_because is None

    async def learn(self, *batches: Batch, began: float, worked_s: float | None = None) -> tuple[Batch, ...]:
        """Takes committed batches into the pace, tells of them, and rests as the duty asks; each with what it
        waited. *worked_s*: how long they took side by side; else they came one after the other."""
        reading = self._watch.reading
        if reading is not None and reading.at >= began and reading.worker_waits_s is not None:
            waits_s = reading.worker_waits_s
            batches = tuple(replace(batch, waited_s=min(batch.seconds, waits_s)) for batch in batches)
        for batch in batches:
            self.pace = self.pace.after(batch)
            self._reporter.batch(batch)
        self._beat_at = self._clock.monotonic()
        self.tell_running()
        took_s = sum(batch.seconds for batch in batches) if worked_s is None else worked_s
        idle_s = max(0.0, self._clock.monotonic() - began - took_s)
        await self.rest(took_s, sum(batch.rows for batch in batches), idle_s)
        return batches

    async def rest(self, worked_s: float, rows: int = 0, idle_s: float = 0.0) -> None:
        """Rests as is asked for after *worked_s* seconds in which so many *rows* were changed, and *idle_s* in which
        the server had nothing to do for us, or until a person says something."""
        self._owed_s += self.pace.sleep_s(worked_s, rows, idle_s)
        if self._owed_s >= SHORTEST_REST_S:
            began = self._clock.monotonic()
            await self._rest(self._owed_s)
            self._owed_s = min(0.0, max(-SHORTEST_REST_S, self._owed_s - (self._clock.monotonic() - began)))

    def tell(self, state: State, reason: str, was: str = "") -> None:
        """Hands on how it stands now; *was* is how the reason is told once it is over."""
        self._reporter.tell(state, reason, self.hold.position, self.pace, was)

    def tell_running(self, because: str = "") -> None:
        """Hands on that it goes on: what it is about, or else why not faster."""
        self.tell(State.RUNNING, because or why_slow(self.pace, self._felt.gate, self._reporter.overridden))

    async def disconnect(self) -> None:
        """Ends the worker's connections."""
        await self._felt.end()
        await self.hold.disconnect()

    async def may_go(self) -> None:
        """Returns when the next batch may begin: nobody paused it and the health gate is open."""
        was_hurt = False
        while True:
            if self._control.stopping:
                raise StopRequested
            if self._watching.done():
                self._watching.result()
            await self._beat()
            await self._obey()
            self._look()
            if self._control.paused_because is not None:
                self._trouble_since = None
                self.tell(State.PAUSED, self._control.paused_because)
                await self._control.rest(self._clock, 1.0)
            elif not self._felt.gate.open:
                gate = self._felt.gate
                was_hurt = was_hurt or bool(gate.hurt_because)
                if not gate.blind_because:
                    self._trouble_since = None
                elif self.hold.session is None:
                    self._give_up(Trouble.LOST, gate.closed_because)
                self.tell(State.THROTTLED, gate.closed_because, gate.closed_was)
                await self._control.rest(self._clock, gate.thresholds.poll_s / 2)
            else:
                if was_hurt:
                    self.pace = self.pace.after_pause()
                return

    def _look(self) -> None:
        """Takes in what a person and the server said since."""
        if self.pace.level != self._control.level:
            self.pace = self.pace.at_level(self._control.level)
        target_s = self._control.target_s
        if target_s is not None and target_s != self.pace.base_target_s:
            self.pace = self.pace.aiming_at(target_s)
        self.pace = self._felt.take_in(self.pace)

    async def _beat(self) -> None:
        now, session = self._clock.monotonic(), self.hold.session
        if session is None or now - self._beat_at < BEAT_EVERY_S:
            return
        self._beat_at = now
        try:
            await row.beat(session.session, self.hold.position)
        except EXPECTED:
            session.session.sever()  # the next batch connects again

    async def _obey(self) -> None:
        session = self.hold.session
        if self._orders is None or session is None:
            return
        try:
            await self._orders.look(session.session, self.hold.position)
        except EXPECTED:
            session.session.sever()  # the next batch connects again
        self._reporter.ordered = self._orders.told

    async def _rest(self, seconds: float) -> None:
        """Rests so long, or until somebody says something, here or from another terminal."""
        until = self._clock.monotonic() + seconds
        while await self._control.rest(self._clock, min(seconds, LOOK_EVERY_S)):
            seconds = until - self._clock.monotonic()
            if seconds <= 0:
                return
            await self._obey()
            if self._control.paused_because is not None:
                return

    def _told_who(self) -> None:
        """Tells who works: some of our backends came or went."""
        worker, crew = self.hold.workers
        self._reporter.worker, self._reporter.crew = worker, crew
        self._watch.workers = tuple(each.pid for each in ((worker, *crew) if worker else crew))

    async def _recover(self, trouble: Trouble, error: Exception, failures: int) -> None:
        session = self.hold.session
        if session is not None and trouble is not Trouble.LOST:
            await session.rollback()
            if trouble is Trouble.FATAL and await session.on_standby():  # a failover, under a pooler's connection
                trouble = Trouble.LOST
        if session is not None and trouble is Trouble.LOST:
            session.session.sever()
        if trouble is Trouble.FATAL:
            raise sentence(error, self._plan.work) from error
        if self._control.stopping:
            return
        if trouble is Trouble.MOVED:
            if self.hold.session is not None:
                await self.hold.moved(self.hold.session)
            return
        reading = self._watch.reading
        found = answer(
            trouble,
            error,
            failures,
            pace=self.pace,
            holder=reading.worker_waits_for if reading else "",
            because=self._felt.cancelled_because,
        )
        self.pace = found.pace
        self._give_up(trouble, found.reason, error)
        self.tell(State.THROTTLED, found.reason)
        await self._rest(found.rest_s)

    def _give_up(self, trouble: Trouble, reason: str, error: Exception | None = None) -> None:
        """Raises where patience is over; a lock, a deadlock and a cancel are somebody's doing and never end it, nor
        does what was before a pause."""
        if trouble not in (Trouble.LOST, Trouble.CROWDED, Trouble.TIMEOUT):
            self._trouble_since = None
            return
        now = self._clock.monotonic()
        self._trouble_since = now if self._trouble_since is None else self._trouble_since
        if now - self._trouble_since > PATIENCE_S:
            raise DbwatchError(
                f"{self._plan.work} gave up after {PATIENCE_S / 60:.0f} min",
                why=reason,
                next="start it again when that is over: it goes on from its cursor",
            ) from error
