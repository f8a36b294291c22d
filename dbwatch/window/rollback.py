"""Carries the way back out: the actions that were shown, in their order, each an event.

Every action can be done twice: it looks first what is left of it. So an abort that was cut short goes on where it
stood, in whosever hands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from dbwatch.backfill.progress import BackfillProgress
from dbwatch.errors import DbwatchError, Fenced
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.migration import runner
from dbwatch.migration.events import Direction
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import Job
from dbwatch.postgres.session import Role, describe
from dbwatch.runbook.model import Migrate, Sql
from dbwatch.steps import progress as shown
from dbwatch.steps.progress import MigrationProgress
from dbwatch.window import restoring
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.ground import Ground
from dbwatch.window.prediction import Prediction
from dbwatch.window.survey import Survey

ATTEMPTS = 20
"""How often a downgrade, or a drop, is tried where a lock is in the way."""
STOP_S = 15.0
"""How long our cancelled work may take to end: the whole ladder from cancel to kill."""
FOR_ABORT = "abort"
"""The reason for which a driver takes the wheel whose first act is to take everything back."""
STUCK_S = 10.0
"""How long a locked relation may keep the look at where an abort stopped waiting."""
LAST_PAUSE_S = 5.0
"""The longest pause between two tries of a drop."""


class Rollbacker:
    """One abort being carried out."""

    def __init__(
        self,
        ground: Ground,
        survey: Survey,
        *,
        stop: asyncio.Event,
        leaving: asyncio.Event,
        signed: Callable[[str], Awaitable[str]],
        show: Callable[[MigrationProgress], None],
        show_backfill: Callable[[BackfillProgress], None],
    ) -> None:
        self._ground, self._survey = ground, survey
        self._stop, self._leaving, self._signed = stop, leaving, signed
        self._show, self._show_backfill = show, show_backfill
        self._working: asyncio.Task[None] | None = None
        self._how = {
            ActionKind.FENCE: self._fence,
            ActionKind.STOP: self._end_work,
            ActionKind.PERSON: self._person,
            ActionKind.SQL: self._undo_sql,
            ActionKind.RESTORE: self._restore,
            ActionKind.CLEAN: self._clean,
            ActionKind.DOWNGRADE: self._downgrade,
            ActionKind.COMPARE: self._compare,
        }

    async def run(
        self, actions: tuple[Action, ...], first: int, working: asyncio.Task[None] | None, plan: AbortPlan | None
    ) -> None:
        """Carries out *actions* from index *first* on. *working* is our own work that was told to end.

        Raises Fenced where somebody took over meanwhile.
        """
        clock, store = self._ground.clock, self._ground.store
        began, self._working = clock.monotonic(), working
        if plan is not None:
            foreseen = plan.prediction.body() if plan.prediction else None
            await store.record(ev.AbortConfirmed([a.body() for a in actions], plan.estimate_s, foreseen), within=1.0)
        if working is not None and not any(a.kind is ActionKind.STOP for a in actions):
            await asyncio.wait({working}, timeout=STOP_S)
        number, since = first, began
        try:
            for number, action in enumerate(actions[first:], first + 1):
                since = clock.monotonic()
                await store.record(ev.AbortActionStarted(number))
                result = await self._how[action.kind](action)
                await store.record(ev.AbortActionDone(number, result, clock.monotonic() - since))
            await self._verdict(clock.monotonic() - began)
        except Fenced:
            raise
        except (DbwatchError, psycopg.Error) as error:
            await self._stuck(number, describe(error), clock.monotonic() - since, clock.monotonic() - began)
        except Exception as error:  # noqa: BLE001  # the work's edge: it becomes the abort's end, which all see
            why = f"{type(error).__name__}: {describe(error)}"
            await self._stuck(number, why, clock.monotonic() - since, clock.monotonic() - began)

    async def _stuck(self, number: int, why: str, taken: float, total: float) -> None:
        if self._leaving.is_set():
            return  # nobody ended the abort: the next driver goes on with it, as after a crash
        stopped = f"stopped at action {number}: {why}"
        found, missed = await self._compared(stopped)
        await self._ground.store.record(
            ev.AbortActionFailed(number, why, taken),
            ev.AbortFinished(False, [stopped], total, found.body() if found else None, missed),
        )

    async def _verdict(self, seconds: float) -> None:
        foreseen = foreseen_of(self._ground.store.events)
        found = await self._survey.found(foreseen.stops if foreseen else "")
        missed = list(foreseen.missed(found)) if foreseen else []
        differences = [*found.left, *(f"not ours: {key}" for key in found.not_ours)]
        back = found.heads == tuple(sorted(self._ground.store.state.start_heads))
        if not back:
            differences.insert(0, f"the version table says {', '.join(found.heads) or 'base'}")
        if found.stops:
            differences.insert(0, f"it stopped {found.stops}")
        facts: list[ev.Fact] = [ev.AbortFinished(not differences, differences, seconds, found.body(), missed)]
        if not found.left and back:
            facts.append(ev.WindowClosed("aborted"))
        await self._ground.store.record(*facts)

    async def _compared(self, stopped: str) -> tuple[Prediction | None, list[str]]:
        """How the database stands where an action failed, and where the prediction was wrong."""
        foreseen = foreseen_of(self._ground.store.events)
        try:
            found = await self._survey.found(stopped, patience_s=STUCK_S)
        except (DbwatchError, psycopg.Error):
            return None, []
        return found, list(foreseen.missed(found)) if foreseen else []

    # --- the kinds of action

    async def _fence(self, action: Action) -> str:
        del action
        store = self._ground.store
        if fenced_already(store.events, store.epoch):
            return f"epoch {store.epoch}, taken on the way in"
        fence = await store.take(FOR_ABORT, within=1.0)
        return f"epoch {fence.epoch}"

    async def _end_work(self, action: Action) -> str:
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=STOP_S)
            if not self._working.done():
                self._working.cancel()
                await asyncio.wait({self._working}, timeout=1.0)
        known = self._ground.store.state.step(action.step)
        if known.status is StepStatus.RUNNING:
            fact = ev.StepFailed(action.step, known.attempt, "stopped by the abort", 0.0, again=False, stopped=True)
            await self._ground.store.record(fact)
        return f"{action.step} has ended"

    async def _person(self, action: Action) -> str:
        signing = asyncio.ensure_future(self._signed(action.step))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({signing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not signing.done():
                raise DbwatchError("stopped by hand")
            return signing.result() or "signed off"
        finally:
            signing.cancel()
            stopping.cancel()

    async def _undo_sql(self, action: Action) -> str:
        step = self._ground.runbook.step(action.step)
        assert isinstance(step, Sql)
        await self._patiently(action.sql[0], alone=False)
        return "done"

    async def _restore(self, action: Action) -> str:
        return await restoring.bring_back(self._ground, action.step, stop=self._stop, show=self._show_backfill)

    async def _clean(self, action: Action) -> str:
        del action
        left, _ = await self._survey.leftovers()
        return await self._remove(left)

    async def _downgrade(self, action: Action) -> str:
        project = self._ground.project
        if project is None:
            raise DbwatchError("the runbook names no Alembic project")
        step = self._ground.runbook.step(action.step)
        assert isinstance(step, Migrate)
        if await self._survey.heads() == frozenset(action.heads):
            return f"at {', '.join(action.heads) or 'base'} already"
        progress = shown.started(action.step, ATTEMPTS)

        def hear(event: object) -> None:
            nonlocal progress
            progress = shown.after(progress, event)  # type: ignore[arg-type]  # the engine's union, by its callback
            self._show(progress)

        limits = self._ground.limits
        job = Job(
            project=project,
            direction=Direction.DOWN,
            to=frozenset(action.heads),
            fence=self._ground.store.fence,
            lock_timeout_ms=limits.lock_timeout_ms,
            statement_timeout_ms=0,
            attempts=ATTEMPTS,
            resume=True,
        )
        connector = self._ground.connector.tagged(self._ground.store.fence.tag)
        outcome = await runner.run(job, connector, clock=self._ground.clock, on_event=hear, stop=self._stop)
        if outcome.failure is not None:
            raise DbwatchError(outcome.failure.message)
        return f"at {', '.join(sorted(outcome.heads_after or ())) or 'base'}"

    async def _compare(self, action: Action) -> str:
        del action
        left, found = await self._survey.leftovers()
        said = ""
        if any(mend.sql for mend in left):
            said = await self._remove(left) + "; "
            _, found = await self._survey.leftovers()
        if found.empty:
            return said + "the schema is the one of the opening"
        ours, others = len(found.ours), len(found.not_ours)
        return said + f"{ours} difference{'s' * (ours != 1)} of ours, {others} not ours"

    # --- taking things away

    async def _remove(self, left: tuple[Mend, ...]) -> str:
        for mend in left:
            for statement in mend.sql:
                await self._patiently(statement, alone=mend.concurrently)
        gone = [mend.difference.key for mend in left if mend.sql]
        return f"removed {', '.join(gone)}" if gone else "nothing was left behind"

    async def _patiently(self, statement: str, *, alone: bool) -> None:
        """One statement, tried again where a lock is in the way. Raises psycopg.Error or DbwatchError in the end."""
        ground = self._ground
        limits = ground.limits.without_timeouts() if alone else ground.limits
        connector = ground.connector.tagged(ground.store.fence.tag)
        for attempt in range(1, ATTEMPTS + 1):
            session = await connector.open(Role.WORKER, limits=limits)
            try:
                await session.execute(statement.encode(), within=86_400.0 if alone else 120.0)
                return
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                if attempt == ATTEMPTS or self._stop.is_set():
                    raise
            finally:
                await session.close()
            await ground.clock.sleep(min(LAST_PAUSE_S, 0.25 * 2**attempt))


def fenced_already(events: Sequence[ev.Event], epoch: int) -> bool:
    """Whether *epoch* was taken for an abort and nothing was begun in it: no work of ours is left to fence out. Pure.

    So a process that enters a window to abort it does not take a second epoch, and its plan told the truth.
    """
    since = [event.fact for event in events if event.epoch == epoch]
    took = next((fact for fact in since if isinstance(fact, ev.DriverTook)), None)
    return took is not None and took.reason == FOR_ABORT and not any(isinstance(f, ev.StepStarted) for f in since)


def foreseen_of(events: Sequence[ev.Event]) -> Prediction | None:
    """What was shown before the abort that was confirmed last. Pure."""
    confirmed = next((e.fact for e in reversed(events) if isinstance(e.fact, ev.AbortConfirmed)), None)
    return Prediction.of(confirmed.prediction) if confirmed is not None and confirmed.prediction else None
