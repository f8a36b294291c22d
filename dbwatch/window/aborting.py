"""The way back in the driver's hands: kept at hand, shown, confirmed, and begun."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from dbwatch.errors import DbwatchError, ServerSilent
from dbwatch.journal import company
from dbwatch.journal import events as ev
from dbwatch.journal.fold import WindowState
from dbwatch.monitor.samples import Snapshot
from dbwatch.postgres.session import describe
from dbwatch.runbook.model import Migrate, Runbook
from dbwatch.window import gates
from dbwatch.window.abort import AbortPlan, Action
from dbwatch.window.feed import Rollback
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Answer
from dbwatch.window.paper import rollback_md
from dbwatch.window.rollback import STOP_S, Rollbacker
from dbwatch.window.script import rollback_sql
from dbwatch.window.survey import Survey
from dbwatch.window.telling import plan_text, verdict_text
from dbwatch.window.work import Work

ASSESS_S = 1.0
"""How often it is looked whether the way back has to be computed anew."""
ANEW_S = 5.0
"""How old the way back that others are shown may be while our work goes on: rows are filled meanwhile."""
REMEMBERED = 20
"""How many of the plans that were shown may still be confirmed."""


class Aborting:
    """Computes the way back whenever the journal went on, and carries it out when it was confirmed."""

    def __init__(
        self, ground: Ground, survey: Survey, work: Work, snapshot: Callable[[], Snapshot], touch: Callable[[], None]
    ) -> None:
        self._ground, self._survey, self._work = ground, survey, work
        self._snapshot, self._touch = snapshot, touch
        self._shown: dict[str, AbortPlan] = {}
        self._signed: dict[str, asyncio.Future[str]] = {}
        self._drawing = asyncio.Lock()
        self._on_paper = ""
        self._going_back = False  # from the confirmation on, before the journal has it
        self._ended: tuple[datetime, ev.AbortFinished] | None = None
        """When the abort was confirmed that did not reach its end here, and how it ended."""
        self.confirming = False
        """One is being compared with what is there now: until it begins, or is refused, nothing else may begin."""
        self.rollback = Rollback(reversible=True, estimate_s=None)
        """What an abort would mean now."""

    @property
    def began(self) -> bool:
        """Whether an abort is under way, or is being confirmed just now."""
        return self.confirming or self._going_back or self._ground.store.state.aborting

    @property
    def awaited(self) -> tuple[str, ...]:
        """Steps that a person has to undo now, for the abort to go on."""
        return tuple(step for step, signature in self._signed.items() if not signature.done())

    def sign(self, step_id: str, note: str) -> bool:
        """A person undid *step_id*; False where nobody waits for that."""
        waiting = self._signed.get(step_id)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(note)
        return True

    async def assess(self, driving: Callable[[], bool]) -> None:
        """Keeps the way back at hand: on the screen, on paper beside the journal's mirror, and for the others."""
        seen, drawn = -1, float("-inf")
        store, clock = self._ground.store, self._ground.clock
        while True:
            state = store.state
            due = state.seq != seen or (self._work.under_way and clock.monotonic() - drawn >= ANEW_S)
            if driving() and due and state.open and not state.aborting:
                try:
                    async with self._drawing:
                        plan = await self._draw()
                    self.rollback = verdict(plan, await self._survey.scripts.no_return(), self._ground.runbook, state)
                    laid = company.lay_way_back(
                        store.window, store.epoch, plan.seq, plan_text(plan), verdict_text(self.rollback)
                    )
                    await store.ask(laid)
                    seen, drawn = state.seq, clock.monotonic()
                except (DbwatchError, psycopg.Error, OSError) as error:
                    self.rollback = replace(self.rollback, unknown=describe(error))
                self._touch()
            await clock.sleep(ASSESS_S)

    async def on_paper(self) -> None:
        """Waits until the way back lies on paper for every step of the runbook as it is now, done or not.

        Where that cannot be, whoever waits goes on: the screen says then that the way back is unknown.
        """
        with contextlib.suppress(DbwatchError, psycopg.Error, OSError):
            async with self._drawing:
                if self._on_paper != self._ground.book.sha:
                    await self._draw()

    async def _draw(self) -> AbortPlan:
        """Puts the way back on paper, beside the journal's mirror; one at a time. Raises OSError, and as `plan`."""
        ground = self._ground
        sha, plan = ground.book.sha, await self.plan()
        revisions = await self._survey.scripts.revisions()
        await ground.store.mirror.lay("rollback.sql", rollback_sql(plan, ground, revisions))
        page = rollback_md(plan, ground, revisions, await self._survey.heads())
        await ground.store.mirror.lay("rollback.md", page)
        self._on_paper = sha
        return plan

    async def plan(self) -> AbortPlan:
        """The way back from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        plan = await self._survey.plan(self._snapshot(), self._work.words())
        shown = {digest: p for digest, p in self._shown.items() if digest != plan.digest}
        self._shown = dict([*shown.items(), (plan.digest, plan)][-REMEMBERED:])
        return plan

    async def confirm(self, digest: str, confirmation: str, asked_by: str = "") -> Answer:
        """Begins the plan that was shown under *digest*, here or to *asked_by*. Raises as `plan`."""
        if self.began:  # two confirm it at once, each at a desk of their own
            return Answer(False, "an abort is under way")
        state = self._ground.store.state
        if not state.open:
            return Answer(False, "the window is closed")
        if confirmation != state.database:
            return Answer(False, "that is not the database's name; nothing was done")
        plan = self._shown.get(digest)
        if plan is None:
            return Answer(False, "that way back was not shown by this dbwatch; look at it again")
        self.confirming = True
        try:
            if self._work.beginning:  # it is in the journal now, or it never begins
                with contextlib.suppress(ServerSilent):
                    await self._ground.store.settle()
            return await self._confirmed(plan, asked_by)
        finally:
            self.confirming = False

    async def _confirmed(self, plan: AbortPlan, asked_by: str) -> Answer:
        if not self._ground.store.state.open:
            return Answer(False, "the window is closed")
        held = await self._hold_still()
        if plan.seq != self._ground.store.state.seq:
            later = await self.plan()
            if not plan.covers(later):
                stopped = f"{held} was stopped, and " if held else ""
                return Answer(False, f"{stopped}the way back has changed meanwhile; look at it again")
            if plan.prediction is not None and plan.prediction.blind:  # our own work held the lock; now it can be told
                plan = replace(plan, prediction=later.prediction)
        self.begin(plan, asked_by)
        return Answer(True, "the abort has begun")

    async def _hold_still(self) -> str:
        """Ends a migrate step that runs: it could commit more while the plan is compared with what is there now. Which
        one; empty: none."""
        running = self._ground.store.state.running
        migrates = running is not None and isinstance(self._ground.runbook.step(running.id), Migrate)
        if running is None or not migrates or not self._work.under_way:
            return ""
        self._work.halt()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._work.settled()), STOP_S)
        return running.id

    def begin(self, plan: AbortPlan, asked_by: str = "") -> None:
        """Carries *plan* out behind; whoever calls has confirmed it."""
        working = self._work.give_up()
        self._roll_back(plan.actions, 0, working, plan, asked_by)

    def go_on(self) -> None:
        """Goes on where an earlier driver's abort was cut short: it was confirmed already.

        Not by a journal that was edited, for nobody may have confirmed what it says: the abort ends where it stands,
        and a person looks at the way back from there. Nor where it has ended here short of its aim, and only the
        journal has lost that.
        """
        abort = self._ground.store.state.abort
        assert abort is not None
        end = self._ended[1] if self._ended is not None and self._ended[0] == abort.confirmed_at else None
        if broken := self._ground.store.broken:
            why = f"it does not go on: event {broken} of the journal was edited, and with it perhaps what was confirmed"
            end = ev.AbortFinished(False, [why], 0.0)
        if end is not None:
            self._work.begin(self._leave_off(end))
            return
        first = next((n for n, a in enumerate(abort.actions) if a.status != "done"), len(abort.actions))
        self._roll_back(tuple(Action.of(a.body) for a in abort.actions), first, None, None)

    async def _leave_off(self, end: ev.AbortFinished) -> None:
        await self._ground.store.record(end, when=lambda state: state.aborting)

    def _roll_back(
        self,
        actions: tuple[Action, ...],
        first: int,
        working: asyncio.Task[None] | None,
        plan: AbortPlan | None,
        asked_by: str = "",
    ) -> None:
        self._work.stop = asyncio.Event()
        back = Rollbacker(
            self._ground,
            self._survey,
            stop=self._work.stop,
            leaving=self._work.leaving,
            signed=self._until_signed,
            show=self._work.show_migration,
            show_backfill=self._work.show_backfill,
        )
        self._going_back = True
        self._work.begin(self._until_over(back.run(actions, first, working, plan, asked_by)))
        self._touch()

    async def _until_over(self, going_back: Coroutine[Any, Any, None]) -> None:
        try:
            await going_back
        finally:
            self._going_back = False
            state, events = self._ground.store.state, reversed(self._ground.store.events)
            if state.open and state.abort is not None and state.abort.finished and not state.abort.equal:
                end = next(e.fact for e in events if isinstance(e.fact, ev.AbortFinished))
                self._ended = state.abort.confirmed_at, replace(end, found=None, undone=[])

    async def _until_signed(self, step_id: str) -> str:
        self._signed[step_id] = asyncio.get_running_loop().create_future()
        self._touch()
        return await self._signed[step_id]


def verdict(plan: AbortPlan, where: tuple[str, str] | None, runbook: Runbook, state: WindowState) -> Rollback:
    """What an abort would mean, from its plan and the first step past which there is no way back. Pure."""
    no_return, why = where or (None, "")
    passed = no_return is not None and gates.may_have_done(state, runbook, no_return)
    reasons: Iterable[str] = (*plan.obstacles, *([why] if passed else []))
    reason = next(iter(reasons), "")
    return Rollback(reversible=not reason, estimate_s=plan.estimate_s, reason=reason, no_return=no_return)
