"""What one who does not drive may do: look on, note, confirm, and ask the driver to pause, to stop, to go back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal import company
from dbwatch.journal import events as ev
from dbwatch.journal.fold import WindowState
from dbwatch.text import age
from dbwatch.window import intents
from dbwatch.window.abort import AbortPlan
from dbwatch.window.feed import Rollback
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Answer, Intent
from dbwatch.window.telling import Told, heard, plan_of, verdict_of

ANSWER_S = 5.0
"""How long a driver's answer to a request is waited for."""
FRESH_S = 10.0
"""Progress that was not overwritten for so long is not shown as if it went on."""


class Navigator:
    """Looks on at a window that somebody else drives. Writes nothing but its own words."""

    def __init__(self, ground: Ground, touch: Callable[[], None]) -> None:
        self._ground, self._store, self._touch = ground, ground.store, touch
        self._plans: dict[str, AbortPlan] = {}
        self.told = Told()
        """How far the running work is, as its driver says."""
        self.rollback = Rollback(reversible=True, estimate_s=None)

    @property
    def silent_s(self) -> float | None:
        """For how long nothing was heard of the driver beyond its lease; None while it is there."""
        left = self._store.lease_left_s
        return -left if left < 0 and self._store.state.open else None

    async def look(self) -> None:
        """Reads what the driver tells besides its events. Raises as `Session.call` does."""
        state = self._store.state
        row = await self._store.ask(company.progress(self._store.window))
        under_way = state.running is not None or state.aborting
        fresh = row is not None and row.epoch == state.epoch and row.age_s < FRESH_S
        self.told = heard(row.progress) if row is not None and fresh and under_way else Told()
        found = await self._store.ask(company.way_back(self._store.window))
        if found is None:
            self.rollback = Rollback(True, None, unknown="its driver has not computed the way back yet")
            return
        verdict = verdict_of(found.verdict)
        self.rollback = verdict or Rollback(True, None, unknown="it was computed by another version of dbwatch")

    async def take(self, intent: Intent) -> Answer:
        """Writes what this person says, or asks the driver. Raises DbwatchError or psycopg.Error."""
        match intent:
            case intents.Confirm(proposal=seq, confirmation=name):
                return await self._confirm(seq, name)
            case intents.Decline(proposal=seq, why=why):
                await self._store.append(self._answer_to(seq, why), fenced=False)
                return Answer(True, "not confirmed")
            case intents.PauseBackfill(step=step_id):
                return await self._request(ev.Requested("pause", step=step_id))
            case intents.ResumeBackfill(step=step_id):
                return await self._request(ev.Requested("resume", step=step_id))
            case intents.StopOurs():
                return await self._request(ev.Requested("stop"))
            case intents.Abort(digest=digest, confirmation=name):
                return await self._abort(digest, name)
            case _:
                driver = self._store.state.driver or "somebody else"
                return Answer(False, f"{driver} drives this window: take the wheel first, or ask them")

    async def plan(self) -> AbortPlan:
        """The way back as the driver last computed it. Raises DbwatchError where there is none to be read."""
        found = await self._store.ask(company.way_back(self._store.window))
        plan = plan_of(found.plan) if found is not None else None
        if plan is None:
            raise DbwatchError(
                "the way back cannot be shown here",
                why="its driver runs another version of dbwatch" if found else "its driver has not computed it yet",
                next="look again in a moment, or take the wheel",
            )
        self._plans[plan.digest] = plan
        return plan

    async def _confirm(self, seq: int, name: str) -> Answer:
        if name != self._store.state.database:
            return Answer(False, "that is not the database's name; nothing was confirmed")
        await self._store.append(self._answer_to(seq, None), fenced=False)
        return Answer(True, "confirmed: the driver begins")

    def _answer_to(self, seq: int, why: str | None) -> Callable[[WindowState], Sequence[ev.Fact]]:
        def answer(state: WindowState) -> Sequence[ev.Fact]:
            proposal = state.proposal
            if proposal is None or proposal.seq != seq or proposal.confirmed_by:
                raise Refused("that proposal is not open any more")
            if why is not None:
                return [ev.ConfirmationRefused(proposal.step, seq, why or "no reason given")]
            if person(proposal.actor) == person(self._store.actor):
                raise Refused(
                    f"{person(proposal.actor)} proposed it: a second person has to confirm it",
                    next="let them say who they are with --as",
                )
            return [ev.ConfirmationGiven(proposal.step, seq)]

        return answer

    async def _abort(self, digest: str, name: str) -> Answer:
        state = self._store.state
        if state.aborting or not state.open:
            return Answer(False, "an abort is under way" if state.open else "the window is closed")
        if name != state.database:
            return Answer(False, "that is not the database's name; nothing was done")
        if digest not in self._plans:
            return Answer(False, "that way back was not shown here; look at it again")
        return await self._request(ev.Requested("abort", digest))

    async def _request(self, wish: ev.Requested) -> Answer:
        written = await self._store.append(lambda _: [wish], fenced=False)
        seq = next(e.seq for e in reversed(written) if isinstance(e.fact, ev.Requested))
        clock = self._ground.clock
        until = clock.monotonic() + ANSWER_S
        while clock.monotonic() < until:
            for event in reversed(self._store.events):
                if isinstance(event.fact, ev.RequestAnswered) and event.fact.request == seq:
                    return Answer(event.fact.taken, event.fact.text)
                if event.seq <= seq:
                    break
            await asyncio.sleep(0.05)
        driver, silent = self._store.state.driver, self.silent_s
        heard_of = f"was last heard of {age(silent + 15)} ago" if silent is not None else "does not answer"
        return Answer(False, f"asked, but {driver} {heard_of}; take the wheel to do it yourself")


def person(actor: str) -> str:
    """Who *actor* (`name@host`) is, on whatever machine. Pure."""
    return actor.partition("@")[0].casefold()
