"""The one piece of our own work that runs: a step in a task, with its stop, its hand and its progress."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from dbwatch.backfill.control import Control
from dbwatch.backfill.progress import BackfillProgress
from dbwatch.errors import ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepState, StepStatus, WindowState
from dbwatch.postgres.session import describe
from dbwatch.runbook.model import Step
from dbwatch.steps.kinds import EXECUTORS, RECOVERIES
from dbwatch.steps.progress import MigrationProgress
from dbwatch.steps.step import Done, Failed, Kit, Outcome, Unknown
from dbwatch.window import restoring
from dbwatch.window.ground import Ground
from dbwatch.window.survey import Survey
from dbwatch.window.telling import told

ASK_AGAIN_S = 1.0
"""How often the database is asked how a step ended whose connection went."""


class Work:
    """Runs at most one thing at a time, and tells how it ended to the journal."""

    def __init__(
        self, ground: Ground, survey: Survey, touch: Callable[[], None], fenced: Callable[[Fenced], None]
    ) -> None:
        self.stop = asyncio.Event()
        """Set: whatever runs ends."""
        self.leaving = asyncio.Event()
        """Set: it ends because its driver leaves, not because a person wants it ended."""
        self.hand = Control()
        """A person's hand on the running backfill."""
        self.beginning = ""
        """The step that is about to begin, or is being signed off: the journal has it soon, or not; empty: none."""
        self.unwanted = False
        """That step was to be stopped before it began."""
        self.migration: MigrationProgress | None = None
        self.backfill: BackfillProgress | None = None
        self.backfill_step = ""
        self.trouble = ""
        """Why it is not known yet how the step ended; empty otherwise."""
        self._ground, self._survey = ground, survey
        self._touch, self._fenced = touch, fenced
        self._task: asyncio.Task[None] | None = None
        self._in_the_way = ""

    @property
    def under_way(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def backfilling(self) -> bool:
        """Whether a backfill of ours runs now."""
        running = self._ground.store.state.running
        return self.under_way and running is not None and running.id == self.backfill_step

    def stood_in_way(self, whom: str) -> None:
        """Takes whom a backend of ours waits for now; the last one is remembered until the step ends."""
        self._in_the_way = whom or self._in_the_way

    def words(self) -> str:
        """How far the running step is, for a sentence; empty where nothing is known."""
        step = self._ground.store.state.running
        if step is None:
            return ""
        if self.backfill is not None and self.backfill_step == step.id:
            return f"after batch {self.backfill.batches:,}, {self.backfill.rows_done:,} rows so far"
        return self.migration.statement if self.migration is not None else ""

    @contextmanager
    def begins(self, step_id: str) -> Iterator[None]:
        """Meanwhile the step is about to begin: how it ended is nobody's to find out, and `halt` means it, too."""
        before = self.beginning
        self.beginning, self.unwanted = step_id, self.unwanted and bool(before)
        try:
            yield
        finally:
            self.beginning = before

    def begin_step(self, step: Step, attempt: int, previous: StepState) -> None:
        """Carries *step* out behind; its start is in the journal already."""
        self.begin(self._step(step, self._kit(attempt, previous)))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs *work* behind as the one thing that runs."""
        self._task = asyncio.create_task(self._until_fenced(work))

    def give_up(self) -> asyncio.Task[None] | None:
        """Tells what runs to end at once; the task, to be waited for."""
        self.stop.set()
        self.hand.abort()
        task, self._task = self._task, None
        return task

    def halt(self) -> None:
        """Tells what runs to end: a batch is finished, a statement cancelled; and what is about to, not to begin."""
        self.unwanted = True
        self.stop.set()
        self.hand.stop()

    async def end(self, within: float) -> None:
        """Ends what runs, for we leave; abandons it where it does not end within so many seconds."""
        self.leaving.set()
        self.unwanted = True
        if self._task is None or self._task.done():
            return
        self.halt()
        await asyncio.wait({self._task}, timeout=within)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.3)

    async def settled(self) -> None:
        """Waits until nothing runs."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def recover(self) -> None:
        """Finds out how the step ended that the last driver was running when it vanished.

        Raises DbwatchError or psycopg.Error where that cannot be found out now.
        """
        step = self._ground.store.state.running
        if step is None:
            return
        spec = self._ground.runbook.step(step.id)
        try:
            outcome = await RECOVERIES[spec.kind](spec, self._kit(step.attempt, step))
        except (DbwatchError, psycopg.Error):
            raise
        except Exception as error:  # noqa: BLE001  # the work's edge: nobody knows, and all see that
            outcome = Unknown(f"{type(error).__name__}: {describe(error)}")
        await self._conclude(spec, step.attempt, outcome, 0.0)

    async def save_progress(self) -> None:
        """Overwrites the running work's progress in the journal. Raises as `Store.save_progress` does."""
        store = self._ground.store
        step = store.state.running
        if step is None and not store.state.aborting:
            return
        backfill = self.backfill if step is None or self.backfill_step == step.id else None
        named, attempt = (step.id, step.attempt) if step is not None else ("abort", 0)
        await store.save_progress(named, attempt, told(self.migration, backfill))

    def show_migration(self, progress: MigrationProgress) -> None:
        """Takes the newest progress of a migrate step, or of an abort's downgrade."""
        self.migration = progress
        self._touch()

    def show_backfill(self, progress: BackfillProgress) -> None:
        """Takes the newest progress of a backfill step, or of its way back in an abort."""
        self.backfill = progress
        running = self._ground.store.state.running
        self.backfill_step = running.id if running else self.backfill_step
        self._touch()

    def quarantined(self, step: str, rows: int) -> None:
        """Rows that the backfill *step* set aside were tried again: so many are left."""
        if self.backfill is not None and self.backfill_step == step:
            self.backfill = replace(self.backfill, quarantined=rows)

    def _kit(self, attempt: int, previous: StepState) -> Kit:
        g, fence = self._ground, self._ground.store.fence
        self.stop, self.hand, self._in_the_way = asyncio.Event(), Control(), ""
        return Kit(
            connector=g.connector,
            limits=g.limits,
            control=g.control,
            facts=g.facts,
            clock=g.clock,
            fence=fence,
            attempt=attempt,
            previous=previous,
            alembic=g.alembic,
            stop=self.stop,
            hand=self.hand,
            record=self._record,
            write_in=lambda connection, facts: g.store.append_in(connection, lambda _: facts, fence),
            left_behind=self._survey.left_behind,
            made_by=lambda target, column: restoring.maker(g.opening, g.store.state.ddl, target, column),
            in_the_way=lambda: self._in_the_way,
            show_migration=self.show_migration,
            show_backfill=self.show_backfill,
        )

    async def _record(self, *facts: ev.Fact) -> bool:
        kept = await self._ground.store.record(*facts)
        self._touch()
        return kept

    async def _until_fenced(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Fenced as error:
            self._fenced(error)
        except Exception as error:  # noqa: BLE001  # the work's edge: all see that it ended so
            self.trouble = f"{type(error).__name__}: {describe(error)}"
        finally:
            self.migration = None
            self._touch()

    async def _step(self, step: Step, kit: Kit) -> None:
        began = kit.clock.monotonic()
        outcome = await self._outcome(step, kit, EXECUTORS[step.kind])
        await self._conclude(step, kit.attempt, outcome, kit.clock.monotonic() - began)

    async def _outcome(self, step: Step, kit: Kit, how: Callable[[Any, Kit], Awaitable[Outcome]]) -> Outcome:
        try:
            return await how(step, kit)
        except Fenced:
            await self._ground.store.renew()  # raises it again, unless it was our own abort that fenced the step
            return Failed("stopped by the abort", again=False, stopped=True)
        except (ConnectionLost, ServerSilent) as error:
            return await self._found_out(step, kit, error)
        except (DbwatchError, psycopg.Error) as error:
            return Failed(describe(error), again=True, stopped=kit.stop.is_set())
        except Exception as error:  # noqa: BLE001  # the work's edge: it becomes the step's failure, which all see
            return Failed(f"{type(error).__name__}: {describe(error)}", again=False)

    async def _found_out(self, step: Step, kit: Kit, lost: DbwatchError) -> Outcome:
        """The connection went while the step ran: asks the journal and the database, until they answer.

        The window's row is locked for it: so a COMMIT that is still on its way is over before the answer is believed.
        """
        while True:
            try:
                await self._ground.store.append(lambda _: ())
                if self._ground.store.state.step(step.id).status is StepStatus.DONE:
                    return Done("", recorded=True)
                return await RECOVERIES[step.kind](step, kit)
            except Fenced:
                raise
            except (DbwatchError, psycopg.Error) as error:
                self.trouble = f"{step.id}: {describe(lost)}; asking how it ended: {describe(error)}"
                self._touch()
            await kit.clock.sleep(ASK_AGAIN_S)

    async def withdraw(self, step_id: str, attempt: int, why: str) -> None:
        """The step was not begun, because of *why*: says so, if its start is in the journal."""
        store = self._ground.store

        def withdrawn(state: WindowState) -> list[ev.Fact]:
            known = state.step(step_id)
            mine = known.status is StepStatus.RUNNING and known.attempt == attempt
            said = f"it was not begun: {why}"
            return [ev.StepFailed(step_id, attempt, said, 0.0, again=True)] if mine else []

        while True:
            try:
                await store.append(withdrawn)
            except (Fenced, Refused):
                raise
            except (DbwatchError, psycopg.Error) as error:
                self.trouble = f"{step_id}: asking whether its start was journalled: {describe(error)}"
                self._touch()
            else:
                self.trouble = ""
                return
            await self._ground.clock.sleep(ASK_AGAIN_S)

    async def _conclude(self, step: Step, attempt: int, outcome: Outcome, seconds: float) -> None:
        store = self._ground.store
        self.trouble = ""

        def still_runs(state: WindowState) -> bool:
            known = state.step(step.id)
            return known.status in (StepStatus.RUNNING, StepStatus.PENDING) and known.attempt in (attempt, 0)

        match outcome:
            case Done(recorded=True):
                await store.refresh()
            case Done(result=result, heads=heads):
                fact: ev.Fact = ev.StepDone(step.id, attempt, result, seconds, list(heads))
                await store.record(fact, when=still_runs)
            case Failed(error=text, again=again, stopped=stopped):
                if self._in_the_way and "lock timeout" in text:
                    text = f"{text}; it waited for {self._in_the_way}"
                await store.record(ev.StepFailed(step.id, attempt, text, seconds, again, stopped), when=still_runs)
            case Unknown(reason=reason):
                await store.record(ev.StepUnknown(step.id, attempt, reason), when=still_runs)
