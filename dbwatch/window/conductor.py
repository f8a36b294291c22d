"""The one who drives: takes intents, decides on the folded state, and never dies unsaid.

Owns the poller, the heartbeat and the work under way. Everything that happens is an event of the journal; the
screens see it because the journal says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from dbwatch.errors import ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus, WindowState
from dbwatch.monitor.poller import Poller
from dbwatch.monitor.samples import Snapshot
from dbwatch.postgres.session import describe
from dbwatch.runbook.model import Manual, Step
from dbwatch.window import gates, intents
from dbwatch.window.abort import AbortPlan, Action
from dbwatch.window.blockers import waiting_for
from dbwatch.window.feed import Frame, Rollback, WindowView
from dbwatch.window.ground import Ground
from dbwatch.window.hub import Hub, HubFeed
from dbwatch.window.intents import Answer, Intent
from dbwatch.window.paper import rollback_md, rollback_sql
from dbwatch.window.rollback import Rollbacker
from dbwatch.window.signalling import signal_session
from dbwatch.window.survey import Survey
from dbwatch.window.work import Work

RENEW_S = 5.0
"""The lease lasts 15 s: three missed renewals lose it."""
ASSESS_S = 1.0
"""How often it is looked whether the way back has to be computed anew."""
RECOVER_S = 3.0
"""How often it is asked how the last driver's step ended, until that is known."""
REMEMBERED = 20
"""How many of the plans that were shown may still be confirmed."""


class Conductor:
    """Drives one open window. `run` until `shut`; intents at any time."""

    accepts: frozenset[type] = intents.ALL

    def __init__(self, ground: Ground, poller: Poller) -> None:
        self.ground = ground
        self._store = ground.store
        self._poller = poller
        self._hub = Hub(self._frame, poller.set_interval)
        self._snapshot = Snapshot()
        self._survey = Survey(ground)
        self.work = Work(ground, self._survey, self._hub.touch, self._lost_wheel)
        self._signed: dict[str, asyncio.Future[str]] = {}
        self._rollback = Rollback(reversible=True, estimate_s=None)
        self._shown: dict[str, AbortPlan] = {}
        self._trouble, self._unwritable = "", ""
        self._driving = True
        self.recovered = asyncio.Event()
        """Set when it is known how the last driver's step ended, or that it goes on."""

    # --- what doors see

    def feed(self) -> HubFeed:
        """A feed of its own for one more looker-on."""
        return self._hub.feed()

    @property
    def state(self) -> WindowState:
        return self._store.state

    @property
    def events(self) -> tuple[ev.Event, ...]:
        return self._store.events

    @property
    def busy(self) -> str:
        """What of ours runs now, in plain words; empty: nothing."""
        return (gates.running_words(self.state) or "the last step's end") if self.work.under_way else ""

    @property
    def awaited(self) -> tuple[str, ...]:
        """Steps that a person has to undo now, for the abort to go on."""
        return tuple(step for step, signature in self._signed.items() if not signature.done())

    def saw(self, snapshot: Snapshot) -> None:
        """Takes a snapshot; the poller's publish."""
        self._snapshot = snapshot
        self.work.stood_in_way(next(filter(None, (waiting_for(snapshot, p) for p in sorted(snapshot.own_pids))), ""))
        self._hub.touch()

    def own_pids(self) -> frozenset[int]:
        """Backends of ours that application_name may not tell: the migration child's."""
        pid = self.work.migration.pid if self.work.migration else None
        return frozenset({pid}) if pid else frozenset()

    def _frame(self) -> Frame:
        state, work = self._store.state, self.work
        migration = work.migration
        if migration is not None and migration.pid:
            migration = replace(migration, waits_for=waiting_for(self._snapshot, migration.pid))
        ended = state.closed_at or self.ground.clock.now()
        view = WindowView(
            runbook=self.ground.runbook,
            state=state,
            events=self._store.events,
            actor=self._store.actor,
            driving=self._driving,
            journal_trouble=self._unwritable or self._store.trouble,
            trouble=self._trouble or work.trouble,
            elapsed_s=(ended - state.opened_at).total_seconds() if state.opened_at else 0.0,
            migration=migration,
            backfill=work.backfill,
            backfill_step=work.backfill_step,
            rollback=self._rollback,
            baseline=self.ground.baseline,
            busy=self.busy,
        )
        return Frame(self._snapshot, view)

    # --- life

    async def run(self) -> None:
        """Runs until cancelled. A core task that fails becomes a status, and our work is stopped."""
        tasks = [
            asyncio.create_task(self._guarded(name, core))
            for name, core in (
                ("the monitor", self._poller.run),
                ("the heartbeat", self._heartbeat),
                ("the view of the way back", self._assess),
            )
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def recover(self) -> None:
        """After rejoining: finds out how the running step ended, and goes on with an abort that was under way.

        Asks again where that cannot be found out yet: until then nothing but an abort may begin.
        """
        while not self.work.under_way:
            try:
                if self.state.aborting:
                    self._go_on_with_abort()
                else:
                    await self.work.recover()
            except Fenced as error:
                self._lost_wheel(error)
            except (DbwatchError, psycopg.Error) as error:
                self.work.trouble = f"how the last step ended is not known yet: {describe(error)}"
                self._hub.touch()
                await self.ground.clock.sleep(RECOVER_S)
                continue
            break
        self.recovered.set()

    async def shut(self, within: float = 1.2) -> None:
        """Ends our work and lets go of the window: the step ends as stopped, the lease ends."""
        await self.work.end(within)
        if self._driving and not self._unwritable:
            with contextlib.suppress(DbwatchError, psycopg.Error, TimeoutError):  # else the lease runs out by itself
                await asyncio.wait_for(self._store.release(within=0.25), 0.3)
        await asyncio.gather(self._store.close(), self.ground.control.close(), return_exceptions=True)

    async def _guarded(self, name: str, core: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await core()
            except Fenced as error:
                self._lost_wheel(error)
                return
            except Exception as error:  # noqa: BLE001  # the loop's edge: a status, and the window stands still
                self._trouble = f"{name} failed: {type(error).__name__}: {describe(error)}"
                self.work.hand.pause(self._trouble)
                self._hub.touch()
            await self.ground.clock.sleep(1.0)

    def _lost_wheel(self, error: Fenced) -> None:
        self._driving = False
        self._trouble = str(error)
        self.work.halt()
        self._hub.touch()

    async def _heartbeat(self) -> None:
        clock, renewed = self.ground.clock, float("-inf")
        while True:
            try:
                if self._driving and clock.monotonic() - renewed >= RENEW_S:
                    await self._store.renew()
                    renewed = clock.monotonic()
                await self._store.refresh(within=3.0)
                if self._driving:
                    await self.work.save_progress()
                    self._trouble = ""
                self._unwritable = ""
            except Fenced as error:  # from now on we look on while somebody else drives
                self._lost_wheel(error)
            except (DbwatchError, psycopg.Error) as error:
                self._unwritable = describe(error)
            self._hub.touch()
            await clock.sleep(1.0)

    async def _assess(self) -> None:
        """Keeps the way back at hand: on the screen, and on paper beside the journal's mirror."""
        seen = -1
        while True:
            state = self.state
            if state.seq != seen and state.open and not state.aborting:
                try:
                    plan = await self.plan_abort()
                    self._rollback = _rollback(plan, await self._survey.no_return(), state)
                    await self._store.mirror.lay("rollback.sql", rollback_sql(plan))
                    await self._store.mirror.lay("rollback.md", rollback_md(plan, self.ground))
                    seen = state.seq
                except (DbwatchError, psycopg.Error, OSError) as error:
                    self._rollback = replace(self._rollback, unknown=describe(error))
                self._hub.touch()
            await self.ground.clock.sleep(ASSESS_S)

    # --- intents

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
        if not self._driving and not isinstance(intent, intents.Signal | intents.Note):
            return Answer(False, "somebody else drives this window; start dbwatch run again to rejoin it")
        match intent:
            case intents.RunStep(step=step_id):
                return await self._run_step(step_id)
            case intents.SignOff(step=step_id, note=note):
                return await self._sign_off(step_id, note)
            case intents.ToggleBackfill():
                return await self._toggle_backfill()
            case intents.ChangeSpeed(faster=faster):
                return await self._change_speed(faster)
            case intents.Signal():
                return await self._signal(intent)
            case intents.StopOurs():
                return await self._stop_ours()
            case intents.Abort(digest=digest, confirmation=confirmation):
                return await self._abort(digest, confirmation)
            case intents.Note(text=text):
                await self._store.append(lambda _: [ev.Noted(text)], fenced=False)
                return Answer(True, "noted")
            case intents.CloseWindow():
                return await self._close()

    async def _run_step(self, step_id: str | None) -> Answer:
        runbook = self.ground.runbook
        step = runbook.step(step_id) if step_id else gates.next_step(self.state, runbook)
        taken_back = step_id is None and self.state.abort is not None and self.state.abort.finished
        if step is None or taken_back:
            return await self._close()
        if self.busy:
            return Answer(False, f"{self.busy} is running")
        if why := gates.refusal(self.state, runbook, step):
            return Answer(False, why)
        if isinstance(step, Manual):
            return Answer(False, f"{step.id} is a person's step: do it, then sign it off with a note")
        await self._start(step)
        return Answer(True, f"{step.id} started")

    async def _start(self, step: Step) -> None:
        heads = tuple(sorted(await self._survey.heads())) if step.kind == "migrate" else ()
        before = self.state.step(step.id)

        def start(state: WindowState) -> Sequence[ev.Fact]:
            nonlocal before
            if refused := gates.refusal(state, self.ground.runbook, step):
                raise Refused(refused)
            before = state.step(step.id)
            return [ev.StepStarted(step.id, before.attempt + 1, list(heads))]

        try:
            await self._store.append(start)
        except (ConnectionLost, ServerSilent):
            self.work.begin(self.work.withdraw(step.id, before.attempt + 1))
            raise
        self.work.begin_step(step, before.attempt + 1, replace(before, heads_before=heads))

    async def _sign_off(self, step_id: str, note: str) -> Answer:
        waiting = self._signed.get(step_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(note)
            return Answer(True, f"{step_id} signed off as undone")
        step = self.ground.runbook.step(step_id)

        def sign(state: WindowState) -> Sequence[ev.Fact]:
            if refused := gates.sign_off_refusal(state, self.ground.runbook, step):
                raise Refused(refused)
            known = state.step(step_id)
            return [ev.StepDone(step_id, known.attempt or 1, note or "signed off", self._since_last(state))]

        await self._store.append(sign)
        return Answer(True, f"{step_id} signed off")

    def _since_last(self, state: WindowState) -> float:
        """Seconds since the step before ended, or the window opened: what a person's step took at most."""
        instants = [step.ended_at for step in state.steps.values() if step.ended_at is not None]
        since = max(instants, default=state.opened_at)
        return max(0.0, (self.ground.clock.now() - since).total_seconds()) if since else 0.0

    async def _toggle_backfill(self) -> Answer:
        running = self.state.running
        if running is None or not self.work.backfilling or self.work.backfill is None:
            found = gates.next_backfill(self.state, self.ground.runbook)
            return Answer(False, found) if isinstance(found, str) else await self._run_step(found.id)
        if self.work.hand.paused_because is not None:
            self.work.hand.resume()
            await self._store.record(ev.StepNoted(running.id, "resumed by hand"))
            return Answer(True, f"{running.id} goes on")
        if self.work.backfill.state.ended:
            return Answer(False, f"{running.id} is over")
        self.work.hand.pause(f"paused by {self._store.actor}")
        await self._store.record(ev.StepNoted(running.id, "paused by hand"))
        return Answer(True, f"{running.id} pauses after this batch")

    async def _change_speed(self, faster: bool) -> Answer:
        running, hand = self.state.running, self.work.hand
        if running is None or not self.work.backfilling:
            return Answer(False, "no backfill is running")
        before, word = hand.level, "faster" if faster else "gentler"
        (hand.faster if faster else hand.slower)()
        if hand.level == before:
            return Answer(False, f"it cannot go {word}")
        await self._store.record(ev.StepNoted(running.id, f"{word} by hand: level {hand.level:+d}"))
        return Answer(True, f"{running.id} goes {word} (level {hand.level:+d})")

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

    async def _stop_ours(self) -> Answer:
        what = self.busy
        if not what:
            return Answer(False, "nothing of ours is running")
        self.work.halt()
        await self._store.record(ev.WorkStopped(what))
        return Answer(True, f"stopping {what}; nothing else changes")

    async def _close(self) -> Answer:
        if self.busy:
            return Answer(False, f"{self.busy} is running")

        def close(state: WindowState) -> Sequence[ev.Fact]:
            left = gates.next_step(state, self.ground.runbook)
            if not state.open:
                raise Refused("the window is closed already")
            if left is not None and state.abort is None:
                raise Refused(f"{left.id} is not done")
            return [ev.WindowClosed("done" if state.abort is None else "failed")]

        await self._store.append(close)
        return Answer(True, f"the window is closed: {self.state.outcome}")

    # --- the abort

    async def plan_abort(self) -> AbortPlan:
        """The way back from here. Raises DbwatchError or psycopg.Error where it cannot be told."""
        plan = await self._survey.plan(self._snapshot, self.work.words())
        shown = {digest: p for digest, p in self._shown.items() if digest != plan.digest}
        self._shown = dict([*shown.items(), (plan.digest, plan)][-REMEMBERED:])
        return plan

    async def _abort(self, digest: str, confirmation: str) -> Answer:
        if self.state.aborting:
            return Answer(False, "an abort is under way")
        if not self.state.open:
            return Answer(False, "the window is closed")
        if confirmation != self.state.database:
            return Answer(False, "that is not the database's name; nothing was done")
        plan = self._shown.get(digest)
        if plan is None:
            return Answer(False, "that way back was not shown by this dbwatch; look at it again")
        if plan.seq != self.state.seq and not plan.covers(await self.plan_abort()):
            return Answer(False, "the way back has changed meanwhile; look at it again")
        self.begin_abort(plan)
        return Answer(True, "the abort has begun")

    def begin_abort(self, plan: AbortPlan) -> None:
        """Carries *plan* out behind; whoever calls has confirmed it."""
        working = self.work.give_up()
        self._roll_back(plan.actions, 0, working, plan)

    def _go_on_with_abort(self) -> None:
        """Goes on where an earlier driver's abort was cut short: it was confirmed already."""
        abort = self.state.abort
        assert abort is not None
        first = next((n for n, a in enumerate(abort.actions) if a.status != "done"), len(abort.actions))
        self._roll_back(tuple(Action.of(a.body) for a in abort.actions), first, None, None)

    def _roll_back(
        self, actions: tuple[Action, ...], first: int, working: asyncio.Task[None] | None, plan: AbortPlan | None
    ) -> None:
        self.work.stop = asyncio.Event()
        back = Rollbacker(
            self.ground,
            self._survey,
            stop=self.work.stop,
            leaving=self.work.leaving,
            signed=self._until_signed,
            show=self.work.show_migration,
        )
        self.work.begin(back.run(actions, first, working, plan))
        self._hub.touch()

    async def _until_signed(self, step_id: str) -> str:
        self._signed[step_id] = asyncio.get_running_loop().create_future()
        self._hub.touch()
        return await self._signed[step_id]


def _rollback(plan: AbortPlan, where: tuple[str, str] | None, state: WindowState) -> Rollback:
    no_return, why = where or (None, "")
    passed = no_return is not None and state.step(no_return).status not in (StepStatus.PENDING, StepStatus.WAIVED)
    reasons: Iterable[str] = (*plan.obstacles, *([why] if passed else []))
    reason = next(iter(reasons), "")
    return Rollback(reversible=not reason, estimate_s=plan.estimate_s, reason=reason, no_return=no_return)
