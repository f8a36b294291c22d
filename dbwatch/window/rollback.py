"""Carries the way back out: the actions that were shown, in their order, each an event.

Every action can be done twice: it looks first what is left of it. So an abort that was cut short goes on where it
stood, in whosever hands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import errors

from dbwatch.backfill.progress import BackfillProgress
from dbwatch.errors import CannotConnect, ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.migration import runner
from dbwatch.migration.events import Cause, Direction, Failed
from dbwatch.migration.mend import Mend
from dbwatch.migration.request import Job, Project
from dbwatch.postgres.session import describe
from dbwatch.runbook.model import Migrate, Sql
from dbwatch.steps.progress import MigrationProgress
from dbwatch.steps.statement import NotBegun, alone
from dbwatch.text import one_line
from dbwatch.window import restoring
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.backward import Nudged, Scribe
from dbwatch.window.ground import Ground
from dbwatch.window.hindsight import FOR_ABORT, fenced_already, foreseen_of, sent_alone
from dbwatch.window.knocking import ATTEMPTS, Knocking, Lookout
from dbwatch.window.prediction import Prediction
from dbwatch.window.survey import Survey

T = TypeVar("T")

STOP_S = 15.0
"""How long our cancelled work may take to end: the whole ladder from cancel to kill."""
STUCK_S = 10.0
"""How long a locked relation may keep the look at where an abort stopped waiting."""
AWAY_S = 600.0
"""How long the server may be away, for a restart or a recovery, before an abort gives up; it is asked all the while."""
ASK_AGAIN_S = 1.0
"""How often."""
TRIES = 20
"""How often an action may lose a server that is back each time: a connection that is refused to env.py alone is no
restart."""


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
        self._number = 0
        self._lookout = Lookout(ground.control, ground.clock)
        self._knocking = Knocking(ground, self._lookout, stop, show, self._note)
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
        self,
        actions: tuple[Action, ...],
        first: int,
        working: asyncio.Task[None] | None,
        plan: AbortPlan | None,
        asked_by: str = "",
    ) -> None:
        """Carries out *actions* from index *first* on. *working* is our own work that was told to end.

        *asked_by* is the navigator who confirmed it, where it was not the driver.

        Raises Fenced where somebody took over meanwhile.
        """
        clock, store = self._ground.clock, self._ground.store
        began, self._working = clock.monotonic(), working
        if plan is not None:
            foreseen = plan.prediction.body() if plan.prediction else None
            bodies = [a.body() for a in actions]
            await store.record(ev.AbortConfirmed(bodies, plan.estimate_s, foreseen, asked_by), within=1.0)
        if working is not None and not any(a.kind is ActionKind.STOP for a in actions):
            await asyncio.wait({working}, timeout=STOP_S)
        since = began
        try:
            async with self._lookout.watching():
                for self._number, action in enumerate(actions[first:], first + 1):
                    since = clock.monotonic()
                    await store.record(ev.AbortActionStarted(self._number))
                    result = await self._while_away(partial(self._how[action.kind], action))
                    if not self._recorded:
                        await store.record(ev.AbortActionDone(self._number, result, clock.monotonic() - since))
                await self._while_away(partial(self._verdict, began))
        except Fenced:
            raise
        except (DbwatchError, psycopg.Error) as error:
            await self._stuck(self._number, describe(error), clock.monotonic() - since, clock.monotonic() - began)
        except Exception as error:  # noqa: BLE001  # the work's edge: it becomes the abort's end, which all see
            why = f"{type(error).__name__}: {describe(error)}"
            await self._stuck(self._number, why, clock.monotonic() - since, clock.monotonic() - began)

    async def _while_away(self, act: Callable[[], Awaitable[T]]) -> T:
        """*act*, begun again where the server went away in the middle of it: each act looks first what is left of it.

        Raises Fenced where somebody took over meanwhile, and what *act* raises where the server is there, stays away
        for longer than AWAY_S, or goes away each time anew.
        """
        clock, lost_at, tries = self._ground.clock, 0.0, 0
        while True:
            try:
                return await act()
            except Fenced:
                raise
            except (DbwatchError, psycopg.Error) as error:
                if not away(error) or self._stop.is_set() or self._leaving.is_set():
                    raise
                lost_at = lost_at or clock.monotonic()
                tries += 1
                if clock.monotonic() > lost_at + AWAY_S or tries == TRIES:
                    raise
                await self._until_back(error, lost_at + AWAY_S)

    async def _until_back(self, lost: Exception, until: float) -> None:
        clock, told = self._ground.clock, False
        while not (self._stop.is_set() or self._leaving.is_set()):
            await clock.sleep(ASK_AGAIN_S)
            try:
                await self._ground.store.renew()
                await self._ground.store.refresh()
            except (Fenced, Refused):
                raise
            except (DbwatchError, psycopg.Error):
                if clock.monotonic() > until:
                    raise lost from None
                if not told:
                    await self._note(f"the server went away ({describe(lost)}); asking until it is back")
                    told = True
            else:
                return

    @property
    def _recorded(self) -> bool:
        """Whether the action's end is in the journal already: it was written in the transaction of its act."""
        abort = self._ground.store.state.abort
        return abort is not None and any(a.number == self._number and a.status == "done" for a in abort.actions)

    async def _note(self, text: str) -> None:
        await self._ground.store.record(ev.AbortActionNoted(self._number, text))

    async def _stuck(self, number: int, why: str, taken: float, total: float) -> None:
        if self._leaving.is_set():
            return  # nobody ended the abort: the next driver goes on with it, as after a crash
        stopped = f"stopped at action {number}: {why}"
        found, missed = await self._compared(stopped)
        if self._stop.is_set():  # a person ended it: nothing that was foreseen has been put to the proof
            missed = []
        await self._ground.store.record(
            ev.AbortActionFailed(number, why, taken),
            ev.AbortFinished(False, [stopped], total, found.body() if found else None, missed),
        )

    async def _verdict(self, began: float) -> None:
        seconds = self._ground.clock.monotonic() - began
        foreseen = foreseen_of(self._ground.store.events)
        found = await self._survey.found(foreseen.stops if foreseen else "")
        missed = list(foreseen.missed(found)) if foreseen else []
        differences = [*found.left, *(f"not ours: {key}" for key in found.not_ours)]
        back = found.heads == tuple(sorted(self._ground.store.state.start_heads))
        if not back:
            differences.insert(0, f"the version table says {', '.join(found.heads) or 'base'}")
        if found.stops:
            differences.insert(0, f"it stopped {found.stops}")
        whole = not found.left and back
        undone = await self._survey.undone() if whole else None
        facts: list[ev.Fact] = [ev.AbortFinished(not differences, differences, seconds, found.body(), missed, undone)]
        if whole:
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
            step, why = self._ground.runbook.step(action.step), "stopped by the abort"
            fact: ev.Fact = ev.StepFailed(action.step, known.attempt, why, 0.0, again=False, stopped=True)
            if isinstance(step, Sql) and alone(step.sql):
                fact = ev.StepUnknown(action.step, known.attempt, f"{why}, and nobody heard how it ended")
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
        if self._recorded:
            return "done"
        began = self._ground.clock.monotonic()
        [statement] = action.sql
        if alone(statement):
            with contextlib.suppress(*_GONE):  # an earlier driver's may have taken effect, and nobody heard of it
                await self._knocking.alone(statement, action.step, unlimited=True)
            return "done"

        def done() -> ev.Fact:
            return ev.AbortActionDone(self._number, "done", self._ground.clock.monotonic() - began)

        await self._knocking.together(statement, action.step, done)
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
        to, barrier = await self._survey.reach(frozenset(action.heads))
        if await self._survey.heads() != to:
            applied = await self._survey.applied()
            if sent := sent_alone(self._ground.store.events, action.step, applied):
                raise _committed_by_itself("the downgrade was cut short", sent)
            await self._go_down(project, action.step, to)
        if barrier:
            raise DbwatchError(f"stopped {barrier}", next="rollback.md says what is left to do by hand")
        return f"at {', '.join(sorted(to)) or 'base'}"

    async def _go_down(self, project: Project, step: str, to: frozenset[str]) -> None:
        """Alembic's downgrade to the heads *to*. Raises DbwatchError where it does not get there."""
        ground, known = self._ground, self._ground.store.state.step(step)
        scribe = Scribe(step, known.attempt, self._number, self._show, self._lookout, ground.store.record)
        job = Job(
            project=project,
            direction=Direction.DOWN,
            to=to,
            fence=ground.store.fence,
            lock_timeout_ms=ground.limits.lock_timeout_ms,
            statement_timeout_ms=0,
            attempts=ATTEMPTS,
            resume=True,
        )
        outcome = await runner.run(
            job,
            ground.connector.tagged(ground.store.fence.tag),
            clock=Nudged(ground.clock, self._lookout, self._stop),
            on_event=scribe.hear,
            stop=self._stop,
            journal=scribe.keep,
        )
        if outcome.failure is not None:
            if outcome.failure.cause is Cause.FENCED:
                raise Fenced(outcome.failure.message)
            if lost(outcome.failure):
                raise ConnectionLost(outcome.failure.message)
            if outcome.alone:
                raise _committed_by_itself(outcome.failure.message, outcome.alone[0])
            raise DbwatchError(outcome.failure.message)

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
                await self._knocking.alone(statement, "", unlimited=mend.concurrently)
        gone = [mend.difference.key for mend in left if mend.sql]
        return f"removed {', '.join(gone)}" if gone else "nothing was left behind"


def _committed_by_itself(what: str, sql: str) -> DbwatchError:
    """Nothing that is tried again by itself."""
    return DbwatchError(
        what,
        why=f"{one_line(sql, 100)} commits by itself, and may have taken effect",
        next="look whether it has; A goes on, and would send it again",
    )


_GONE = (errors.UndefinedObject, errors.UndefinedTable, errors.UndefinedColumn, errors.DuplicateTable)


def away(error: Exception) -> bool:
    """Whether *error* says that the server, or the way to it, went away; not that it refused what we asked. Pure."""
    if isinstance(error, psycopg.OperationalError):
        state = error.sqlstate
        return state is None or state.startswith(("08", "57P0"))
    if isinstance(error, runner.MigrationError):
        return error.failure.cause is Cause.DATABASE and lost(error.failure)
    if isinstance(error, NotBegun) and isinstance(error.__cause__, Exception):
        return away(error.__cause__)
    return isinstance(error, ConnectionLost | ServerSilent | CannotConnect | NotBegun)


def lost(failure: Failed) -> bool:
    """Whether a downgrade ended because the server, or the way to it, went away. Pure."""
    state = failure.sqlstate or ""
    return (
        failure.cause in (Cause.UNSEEN, Cause.DIED)
        or state.startswith(("08", "57P0"))
        or (failure.cause is Cause.DATABASE and not state)
    )
