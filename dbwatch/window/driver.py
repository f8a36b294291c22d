"""What the one who drives may do: decides on the folded state, journals, and sets our work going."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import timedelta

import psycopg

from dbwatch.backfill.retrying import Retried
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import events as ev
from dbwatch.journal.fold import Request, WindowState
from dbwatch.monitor.samples import Snapshot
from dbwatch.postgres.session import describe
from dbwatch.window import filling, gates, intents, restoring
from dbwatch.window.aborting import Aborting
from dbwatch.window.amending import Amending
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Answer, Intent
from dbwatch.window.steering import Steering
from dbwatch.window.stepping import Stepping
from dbwatch.window.survey import Survey
from dbwatch.window.work import Work

RECOVER_S = 3.0
"""How often it is asked how the last driver's step ended, until that is known."""
ENDS_WITHIN_S = 2.0
"""How long the next step waits for the last one's end to be put away."""
STALE = timedelta(seconds=15)
"""A request that waited longer is not carried out: whoever asked may have thought better of it meanwhile."""


class Driver:
    """Carries out intents under the window's epoch. Every method raises Fenced where that is over."""

    def __init__(
        self,
        ground: Ground,
        snapshot: Callable[[], Snapshot],
        touch: Callable[[], None],
        fenced: Callable[[Fenced], None],
    ) -> None:
        self.ground = ground
        self._store = ground.store
        self._touch = touch
        self._survey = Survey(ground)
        self.work = Work(ground, self._survey, touch, fenced)
        self._steering = Steering(self._store, self.work)
        self.aborting = Aborting(ground, self._survey, self.work, snapshot, touch)
        self._stepping = Stepping(ground, self._survey, self.work, self.aborting)
        self.amending = Amending(ground, self._survey.scripts.forget)
        self._granted: dict[Request, ev.RequestAnswered] = {}
        """What was done about each: nothing is done twice for one wish."""
        self._retrying = ""
        """The step whose rows are tried again."""
        self._trying: asyncio.Task[Retried] | None = None
        self._recovering = asyncio.Lock()

    @property
    def state(self) -> WindowState:
        return self._store.state

    @property
    def busy(self) -> str:
        """What of ours runs now, in plain words; empty: nothing."""
        if self.aborting.confirming:
            return "the way back"
        if self.work.beginning:
            return f"the beginning of {self.work.beginning}"
        if self._retrying:
            return f"another try of the rows that {self._retrying} set aside"
        return (gates.running_words(self.state) or "the last step's end") if self.work.under_way else ""

    async def recover(self) -> None:
        """After taking the wheel: finds out how the running step ended, and goes on with an abort that was under way.

        Asks again where that cannot be found out yet: until then nothing but an abort may begin.
        """
        while not await self._recovered():
            await self.ground.clock.sleep(RECOVER_S)

    async def look_after(self, driving: Callable[[], bool]) -> None:
        """The same now and then, for a journal that went back under us to before a step or an abort of ours ended."""
        while True:
            await self.ground.clock.sleep(RECOVER_S)
            if driving() and self.state.open:
                await self._recovered()

    async def _recovered(self) -> bool:
        """Whether nothing is under way in the journal that nobody carries out, after a look at what is."""
        async with self._recovering:
            ours = self.state.epoch == self._store.epoch and not self.work.leaving.is_set()
            carried_out = self.work.under_way or self.work.beginning or self.aborting.confirming
            if not ours or carried_out or not (self.state.aborting or self.state.running):
                return True
            try:
                if self.state.aborting:
                    self.aborting.go_on()
                else:
                    await self.work.recover()
            except Fenced:
                raise
            except (DbwatchError, psycopg.Error) as error:
                self.work.trouble = f"how the last step ended is not known yet: {describe(error)}"
                self._touch()
                return False
            return True

    async def heed(self) -> None:
        """Does what others have asked for or confirmed since the journal was last read."""
        for request in self.state.requests:
            if request not in self._granted:  # else only the answer could not be written the last time
                answer = await self._grant(request)
                self._granted[request] = ev.RequestAnswered(request.seq, answer.taken, answer.text)
            await self._store.record(self._granted[request])
        proposal = self.state.proposal
        if proposal is not None and proposal.confirmed_by and not self.busy:
            try:
                await self._stepping.confirmed(self.ground.runbook.step(proposal.step), proposal)
            except Refused as error:
                with contextlib.suppress(Refused):  # its start was written before it was stopped
                    await self._store.append(_withdrawal(proposal.seq, str(error)))

    async def _grant(self, request: Request) -> Answer:
        if self.ground.clock.now() - request.at > STALE:
            return Answer(False, "it came too late to be sure that it is still wanted; ask again")
        match request.act:
            case "pause":
                return await self._steering.pause(request.step, request.actor)
            case "resume":
                return await self._steering.resume(request.step, request.actor)
            case "backfill":
                return Answer(False, "an older dbwatch asked, which does not say whether to pause or to resume")
            case "stop":
                return await self._stop_ours()
            case "abort":
                self.stop_trying()
                return await self.aborting.confirm(request.digest, self.state.database, request.actor)
            case other:
                return Answer(False, f"this version does not know what {other!r} is")

    async def take(self, intent: Intent) -> Answer:
        """Carries the intent out as far as taking it on goes. Raises DbwatchError or psycopg.Error."""
        if isinstance(intent, intents.RunStep | intents.CloseWindow):
            await self._let_end()
        match intent:
            case intents.RunStep(step=step_id, confirmation=name):
                return await self._run_step(step_id, name)
            case intents.SignOff(step=step_id, note=note, confirmation=name):
                if self.aborting.sign(step_id, note):
                    return Answer(True, f"{step_id} signed off as undone")
                return await self._stepping.sign_off(step_id, note, name)
            case intents.Decide(step=step_id, took_effect=took_effect, note=note):
                return await self._stepping.decide(step_id, took_effect, note)
            case intents.Decline(proposal=seq, why=why):
                await self._store.append(_withdrawal(seq, why or "taken back"))
                return Answer(True, "the proposal was taken back")
            case intents.Amend(sha=sha):
                return Answer(False, f"{self.busy} is running") if self.busy else await self.amending.amend(sha)
            case intents.PauseBackfill(step=step_id):
                return await self._steering.pause(step_id, self._store.actor)
            case intents.ResumeBackfill(step=step_id):
                return await self._steering.resume(step_id, self._store.actor)
            case intents.ChangeSpeed(faster=faster):
                return await self._steering.change_speed(faster)
            case intents.SetBatchTime(seconds=seconds):
                return await self._steering.set_batch_time(seconds)
            case intents.OverrideSignal(signal=signal, seconds=seconds):
                return await self._steering.override(signal, seconds)
            case intents.RetryRows(step=step_id, key=key):
                return await self._retry(step_id, key)
            case intents.StopOurs():
                return await self._stop_ours()
            case intents.Abort(digest=digest, confirmation=confirmation):
                self.stop_trying()
                return await self.aborting.confirm(digest, confirmation)
            case intents.CloseWindow(confirmation=confirmation):
                return await self._close(confirmation)
            case _:
                return Answer(False, "the driver has no need of that")

    async def _let_end(self) -> None:
        """Waits a moment for a step whose end is told and is being put away: nobody is refused the next for that."""
        if self.work.under_way and not gates.running_words(self.state):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.work.settled()), ENDS_WITHIN_S)

    async def _run_step(self, step_id: str | None, name: str = "") -> Answer:
        runbook = self.ground.runbook
        step = runbook.step(step_id) if step_id else gates.next_step(self.state, runbook)
        taken_back = step_id is None and self.state.abort is not None and self.state.abort.finished
        if step is None or taken_back:
            return await self._close(name)
        return Answer(False, f"{self.busy} is running") if self.busy else await self._stepping.run(step, name)

    # --- our work while it runs

    async def _retry(self, step_id: str, key: str | None) -> Answer:
        """Each row has a transaction of its own: what is done by the time that this is cut short stays done."""
        if self.busy:
            return Answer(False, f"{self.busy} is running: rows are tried again when it does not")
        trying = asyncio.ensure_future(filling.retry(self.ground, step_id, key))
        self._retrying, self._trying = step_id, trying
        self._touch()
        try:
            await asyncio.wait({trying})
        finally:
            trying.cancel()
            await asyncio.wait({trying}, timeout=1.0)
            self._retrying, self._trying = "", None
            self._touch()
        stopped = trying.cancelled()
        said = filling.STOPPED if stopped else filling.told(trying.result())
        await self._store.record(ev.StepNoted(step_id, f"{said}; asked by {self._store.actor}"))
        self.work.quarantined(step_id, (await filling.aside(self.ground, step_id)).total)
        return Answer(not stopped and not trying.result().left, said)

    async def _stop_ours(self) -> Answer:
        what = self.busy
        if not what and self.state.proposal is not None:
            await self._store.append(_withdrawal(self.state.proposal.seq, "stopped by hand"))
            return Answer(True, "the proposal was taken back")
        if not what:
            return Answer(False, "nothing of ours is running")
        if self.aborting.confirming:
            return Answer(False, "the way back is being confirmed just now: see what becomes of it")
        if self._trying is not None:
            self.stop_trying()
        else:
            self.work.halt()
        await self._store.record(ev.WorkStopped(what))
        return Answer(True, f"stopping {what}; nothing else changes")

    def stop_trying(self) -> None:
        """Ends another try of rows in quarantine, where one is under way."""
        if self._trying is not None:
            self._trying.cancel()

    async def _close(self, name: str = "") -> Answer:
        if self.busy:
            return Answer(False, f"{self.busy} is running")
        abort = self.state.abort
        if self.state.open and abort is not None and abort.differences and name != self.state.database:
            asked = "that is not the database's name" if name else "type the database's name to close it as it is"
            left = f"the way back did not reach its end ({abort.differences[0]})"
            return Answer(False, f"{left}: A goes on with it, or {asked}", True)

        def close(state: WindowState) -> Sequence[ev.Fact]:
            left = gates.next_step(state, self.ground.runbook)
            if not state.open:
                raise Refused("the window is closed already")
            if left is not None and state.abort is None:
                raise Refused(f"{left.id} is not done")
            return [ev.WindowClosed("done" if state.abort is None else "failed")]

        await self._store.append(close)
        said = await restoring.let_go(self.ground) if self.state.outcome == "done" else ""
        return Answer(True, f"the window is closed: {self.state.outcome}" + (f"; {said}" if said else ""))


def _withdrawal(seq: int, why: str) -> Callable[[WindowState], Sequence[ev.Fact]]:
    def withdraw(state: WindowState) -> Sequence[ev.Fact]:
        if state.proposal is None or state.proposal.seq != seq:
            raise Refused("that proposal is not open any more")
        return [ev.ConfirmationRefused(state.proposal.step, seq, why)]

    return withdraw
