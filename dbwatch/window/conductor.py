"""One person's place at an open window: what they see, and what becomes of what they want.

Whoever holds the window's epoch drives (`driver.py`); everybody else looks on (`navigator.py`). A place can change
hands while it is sat at: the wheel is lost to another, or taken. Everything that happens is an event of the journal;
the screens see it because the journal says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import psycopg

from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import company
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.company import Seat
from dbwatch.journal.ears import Ears
from dbwatch.journal.fold import WindowState
from dbwatch.monitor.poller import Poller
from dbwatch.monitor.samples import Snapshot
from dbwatch.postgres.session import describe
from dbwatch.window import filling, intents
from dbwatch.window.abort import AbortPlan
from dbwatch.window.amending import follow
from dbwatch.window.blockers import waiting_for
from dbwatch.window.driver import Driver
from dbwatch.window.feed import Aside, Foretold, Frame, WindowView
from dbwatch.window.ground import Ground
from dbwatch.window.hub import Hub, HubFeed
from dbwatch.window.intents import Answer, Intent
from dbwatch.window.navigator import Navigator
from dbwatch.window.signalling import signal_session
from dbwatch.window.wheel import take_wheel
from dbwatch.window.work import Work

RENEW_S = 5.0
"""The lease lasts 15 s: three missed renewals lose it."""
BEAT_S = 1.0
"""How often the journal is read where nobody was heard to write into it."""


class Conductor:
    """Sits at one open window. `run` until `shut`; intents at any time."""

    def __init__(self, ground: Ground, poller: Poller) -> None:
        self.ground = ground
        self._store = ground.store
        self._poller = poller
        self._ears = Ears(ground.base)
        self._hub = Hub(self._frame, poller.set_interval)
        self._snapshot = Snapshot()
        self._driving = ground.store.epoch > 0
        self.driver = Driver(ground, lambda: self._snapshot, self._hub.touch, self._lost_wheel)
        self._navigator = Navigator(ground, self._hub.touch)
        self._seats: list[Seat] = []
        self._trouble, self._unwritable = "", ""
        self._read = asyncio.Event()
        """Set whenever the journal was read anew."""
        self._recovering: asyncio.Task[None] | None = None
        self.recovered = asyncio.Event()
        """Set when it is known how the last driver's step ended, or that it goes on."""

    # --- what doors see

    @property
    def accepts(self) -> frozenset[type]:
        """What this person may do now."""
        return intents.DRIVER if self._driving else intents.NAVIGATOR

    @property
    def driving(self) -> bool:
        """Whether we hold the window's epoch, as far as we know."""
        return self._driving

    @property
    def work(self) -> Work:
        """Our own running work."""
        return self.driver.work

    @property
    def awaited(self) -> tuple[str, ...]:
        """Steps that a person has to undo now, for the abort to go on."""
        return self.driver.aborting.awaited

    def feed(self) -> HubFeed:
        """A feed of its own for one more looker-on."""
        return self._hub.feed()

    @property
    def state(self) -> WindowState:
        return self._store.state

    @property
    def events(self) -> tuple[Event, ...]:
        return self._store.events

    def saw(self, snapshot: Snapshot) -> None:
        """Takes a snapshot; the poller's publish."""
        self._snapshot = snapshot
        self.work.stood_in_way(next(filter(None, (waiting_for(snapshot, p) for p in sorted(snapshot.own_pids))), ""))
        self._hub.touch()

    def own_pids(self) -> frozenset[int]:
        """Backends of this window that application_name may not tell: the migration child's."""
        migration = self.work.migration if self._driving else self._navigator.told.migration
        return frozenset({migration.pid}) if migration is not None and migration.pid else frozenset()

    def _frame(self) -> Frame:
        state, driving, work = self._store.state, self._driving, self.work
        migration, backfill = (
            (work.migration, work.backfill)
            if driving
            else (self._navigator.told.migration, self._navigator.told.backfill)
        )
        if migration is not None and migration.pid:
            migration = replace(migration, waits_for=waiting_for(self._snapshot, migration.pid))
        ended = state.closed_at or self.ground.clock.now()
        amending = self.driver.amending
        view = WindowView(
            runbook=self.ground.runbook,
            state=state,
            events=self._store.events,
            actor=self._store.actor,
            driving=driving,
            journal_trouble=self._unwritable or self._store.trouble,
            trouble=self._trouble or (work.trouble if driving else ""),
            elapsed_s=(ended - state.opened_at).total_seconds() if state.opened_at else 0.0,
            migration=migration,
            backfill=backfill,
            backfill_step=work.backfill_step if driving else state.running.id if backfill and state.running else "",
            rollback=self.driver.aborting.rollback if driving else self._navigator.rollback,
            baseline=self.ground.baseline,
            navigators=tuple(s.actor for s in self._seats if s.driving != state.epoch and s.actor != state.driver),
            silent_s=None if driving else self._navigator.silent_s,
            edited=amending.difference if driving else "",
            edited_sha=amending.edited.sha if driving and amending.edited else "",
            busy=self.driver.busy,
        )
        return Frame(self._snapshot, view)

    # --- life

    async def run(self) -> None:
        """Runs until cancelled. A core task that fails becomes a status, and our work is stopped."""
        cores: tuple[tuple[str, Callable[[], Coroutine[Any, Any, None]]], ...] = (
            ("the monitor", self._poller.run),
            ("the heartbeat", self._heartbeat),
            ("the ear for the others", self._heed),
            ("the look after what is under way", lambda: self.driver.look_after(lambda: self._driving)),
            ("the view of the way back", lambda: self.driver.aborting.assess(lambda: self._driving)),
            ("the look at the runbook", lambda: self.driver.amending.watch(self._hub.touch)),
        )
        tasks = [asyncio.create_task(self._guarded(name, core)) for name, core in cores]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def recover(self) -> None:
        """After taking the wheel: finds out where the window stands, and goes on with an abort that was cut short."""
        if self._driving:
            try:
                await self.driver.recover()
            except Fenced as error:
                self._lost_wheel(error)
        self.recovered.set()

    async def shut(self, within: float = 1.2) -> None:
        """Ends our work and lets go of the window: the step ends as stopped, the lease ends."""
        if self._recovering is not None:
            self._recovering.cancel()
        await self.work.end(within)
        if self._driving and not self._unwritable:
            with contextlib.suppress(DbwatchError, psycopg.Error, TimeoutError):  # else the lease runs out by itself
                await asyncio.wait_for(self._store.release(within=0.25), 0.3)
        closing = (self._store.close(), self.ground.control.close(), self._ears.close())
        await asyncio.gather(*closing, return_exceptions=True)

    async def _guarded(self, name: str, core: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await core()
            except Fenced as error:
                self._lost_wheel(error)
            except Exception as error:  # noqa: BLE001  # the loop's edge: a status, and the window stands still
                self._trouble = f"{name} failed: {type(error).__name__}: {describe(error)}"
                self.work.hand.pause(self._trouble)
                self._hub.touch()
            await self.ground.clock.sleep(1.0)

    def _lost_wheel(self, error: Fenced) -> None:
        """From now on we look on while somebody else drives."""
        self._driving = False
        self._trouble = str(error)
        self.work.halt()
        self.driver.stop_trying()
        self._hub.touch()

    async def _heartbeat(self) -> None:
        clock, renewed, told = self.ground.clock, float("-inf"), float("-inf")
        while True:
            try:
                if clock.monotonic() - renewed >= RENEW_S:
                    if self._driving:
                        await self._store.renew()
                    await self._sit()
                    renewed = clock.monotonic()
                await self._store.refresh(within=3.0)
                if self._driving and clock.monotonic() - told >= BEAT_S:
                    await self.work.save_progress()
                    told = clock.monotonic()
                self._read.set()
                if self._driving:
                    self._trouble = ""
                else:
                    follow(self.ground)
                    await self._navigator.look()
                self._unwritable = ""
            except Fenced as error:
                self._lost_wheel(error)
            except (DbwatchError, psycopg.Error) as error:
                self._unwritable = describe(error)
            self._hub.touch()
            await self._ears.wait(BEAT_S)

    async def _heed(self) -> None:
        """Does what others ask for; beside the heartbeat, for it may take longer than the lease lasts."""
        while True:
            await self._read.wait()
            self._read.clear()
            if not self._driving:
                continue
            try:
                await self.driver.heed()
            except Fenced:
                raise
            except (DbwatchError, psycopg.Error) as error:  # tried again when the journal is read the next time
                self._unwritable = describe(error)

    async def _sit(self) -> None:
        """Says that we are there, and looks who else is."""
        holds = self._store.epoch if self._driving else 0
        await self._store.ask(company.sit(self._store.window, self._store.actor, holds))
        self._seats = await self._store.ask(company.seats(self._store.window))

    # --- intents

    async def plan_abort(self) -> AbortPlan:
        """The way back from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        return await (self.driver.aborting.plan() if self._driving else self._navigator.plan())

    async def plan_backfill(self, step: str) -> Foretold:
        """What the backfill *step* would do from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        return await filling.foretell(self.ground, step)

    async def rows_aside(self, step: str) -> Aside:
        """What the backfill *step* holds in quarantine. Raises as `plan_backfill`."""
        return await filling.aside(self.ground, step)

    async def submit(self, intent: Intent) -> Answer:
        """Carries the intent out as far as taking it on goes; long work goes on behind. Never raises."""
        try:
            answer = await self._take(intent)
        except Refused as error:
            answer = Answer(False, str(error))
        except Fenced as error:
            self._lost_wheel(error)
            answer = Answer(False, str(error))
        except (DbwatchError, psycopg.Error) as error:
            answer = Answer(False, f"not done: {describe(error)}")
        self._hub.touch()
        return answer

    async def _take(self, intent: Intent) -> Answer:
        match intent:
            case intents.Signal():
                return await self._signal(intent)
            case intents.Note(text=text):
                return await self._say(ev.Noted(text), "noted")
            case intents.Mark(text=text):
                return await self._say(ev.Marked(text), "marked")
            case intents.TakeOver(reason=reason):
                return await self._take_over(reason)
            case _ if self._driving:
                return await self.driver.take(intent)
            case _:
                return await self._navigator.take(intent)

    async def _say(self, fact: ev.Fact, done: str) -> Answer:
        await self._store.append(lambda _: [fact], fenced=False)
        return Answer(True, done)

    async def _signal(self, intent: intents.Signal) -> Answer:
        answer = await signal_session(self.ground.control, intent)
        act = "terminate" if intent.terminate else "cancel"
        fact = ev.SessionSignalled(act, intent.pid, intent.who, intent.query[:500], answer.text)
        try:
            if self._driving:
                await self._store.record(fact)
            else:
                await self._store.append(lambda _: [fact], fenced=False)
        except (DbwatchError, psycopg.Error) as error:  # what was done stays done: the window may be closed by now
            return replace(answer, text=f"{answer.text}; not journalled: {describe(error)}")
        return answer

    async def _take_over(self, reason: str) -> Answer:
        if self._driving:
            return Answer(False, "you drive already")
        if not self.state.open:
            return Answer(False, f"the window is closed: {self.state.outcome}")
        if self.work.under_way:
            return Answer(False, "our own work of before is still ending; try again in a moment")
        driver = self.state.driver
        await take_wheel(self.ground, reason)
        self._driving, self._trouble = True, ""
        self.recovered.clear()
        self._recovering = asyncio.create_task(self.recover())
        return Answer(True, f"you drive now; {driver} is fenced out")
