"""Steps begin, are signed off and are decided about: only where the gates let them, and the journal says so first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dbwatch.errors import ConnectionLost, Refused, ServerSilent
from dbwatch.journal import events as ev
from dbwatch.journal.fold import Proposal, StepStatus, WindowState
from dbwatch.runbook.model import Manual, Migrate, Sql, Step
from dbwatch.window import certificates, gates
from dbwatch.window.aborting import Aborting
from dbwatch.window.ground import Ground
from dbwatch.window.intents import Answer
from dbwatch.window.survey import Survey
from dbwatch.window.work import Work


class Stepping:
    """Sets the runbook's steps going. Every method raises Fenced where our epoch is over."""

    def __init__(self, ground: Ground, survey: Survey, work: Work, aborting: Aborting) -> None:
        self._ground, self._store = ground, ground.store
        self._survey, self._work, self._aborting = survey, work, aborting

    @property
    def _state(self) -> WindowState:
        return self._store.state

    async def run(self, step: Step, name: str) -> Answer:
        """Begins *step*, or proposes it; *name* is what was typed for the database's name. Raises as `Driver.take`."""
        if why := gates.refusal(self._state, self._ground.runbook, step):
            return Answer(False, why)
        if isinstance(step, Manual):
            return Answer(False, f"{step.id} is a person's step: do it, then sign it off with a note")
        with self._work.begins(step.id):
            if why := await certificates.shortfall(self._ground, step):
                return Answer(False, why)
            if (wait := await self._not_yet(step, name, "")) is not None:
                return wait
            await self._start(step)
        return Answer(True, f"{step.id} started")

    async def _not_yet(self, step: Step, name: str, note: str) -> Answer | None:
        """What has to be said before *step* may begin: the database's name, a second person's word; None: nothing."""
        no_return = await self._survey.scripts.no_return()
        beyond = no_return is not None and no_return[0] == step.id
        if beyond and name != self._state.database:
            assert no_return is not None
            asked = "that is not the database's name" if name else "type the database's name to go on"
            return Answer(False, f"past {step.id} there is no whole way back ({no_return[1]}): {asked}", True)
        if step.confirm is None:
            return None
        why = (
            f"past it there is no whole way back: {no_return[1]}" if beyond and no_return else "the runbook asks for it"
        )

        def propose(state: WindowState) -> Sequence[ev.Fact]:
            self._require_wanted()
            if refused := gates.refusal(state, self._ground.runbook, step):
                raise Refused(refused)
            if state.proposal is not None:
                raise Refused(f"{state.proposal.step} waits for a second person's word already")
            return [ev.ConfirmationAsked(step.id, why, note)]

        await self._store.append(propose)
        return Answer(True, f"{step.id} is proposed: it begins once a navigator has typed the database's name")

    async def confirmed(self, step: Step, proposal: Proposal) -> None:
        """Begins a step that a second person has confirmed. Raises Refused where it cannot begin any more."""
        with self._work.begins(step.id):
            if why := await certificates.shortfall(self._ground, step):
                raise Refused(why)
            if isinstance(step, Manual):
                await self._signed(step, proposal.note)
            else:
                await self._start(step)

    async def _start(self, step: Step) -> None:
        if isinstance(step, Migrate) and self._ground.project is None:  # raises where the files are elsewhere
            raise Refused("the runbook names no Alembic project", next='write alembic = "alembic.ini" at its top')
        if isinstance(step, Migrate | Sql):
            await self._aborting.on_paper()
        heads = tuple(sorted(await self._survey.heads())) if step.kind == "migrate" else ()
        before = self._state.step(step.id)

        def start(state: WindowState) -> Sequence[ev.Fact]:
            nonlocal before
            if refused := gates.refusal(state, self._ground.runbook, step) or gates.unconfirmed(state, step):
                raise Refused(refused)
            self._require_wanted()
            before = state.step(step.id)
            return [ev.StepStarted(step.id, before.attempt + 1, list(heads))]

        try:
            await self._store.append(start)
        except (ConnectionLost, ServerSilent):
            withdrawing = self._work.withdraw(step.id, before.attempt + 1, "the answer to its start was lost")
            if self._aborting.began:
                await withdrawing
            else:
                self._work.begin(withdrawing)
            raise
        if why := self._unwanted:  # since its start was sent
            await self._work.withdraw(step.id, before.attempt + 1, why)
            raise Refused(f"{step.id} was not begun", why=why)
        self._work.begin_step(step, before.attempt + 1, replace(before, heads_before=heads))

    async def sign_off(self, step_id: str, note: str, name: str) -> Answer:
        """A person has done *step_id*, or knows that it took effect."""
        step = self._ground.runbook.step(step_id)
        if refused := gates.sign_off_refusal(self._state, self._ground.runbook, step):
            return Answer(False, refused)
        unknown = self._state.step(step_id).status is StepStatus.UNKNOWN
        with self._work.begins(step_id):
            if not unknown and (why := await certificates.shortfall(self._ground, step)):
                return Answer(False, why)
            if not unknown and (wait := await self._not_yet(step, name, note)) is not None:
                return wait
            await self._signed(step, note)
        late = "; an abort was being confirmed just then: see whether it undoes this" if self._aborting.began else ""
        return Answer(True, f"{step_id} signed off{late}")

    async def _signed(self, step: Step, note: str) -> None:
        def sign(state: WindowState) -> Sequence[ev.Fact]:
            known = state.step(step.id)
            refused = gates.sign_off_refusal(state, self._ground.runbook, step)
            if refused := refused or ("" if known.status is StepStatus.UNKNOWN else gates.unconfirmed(state, step)):
                raise Refused(refused)
            self._require_wanted()
            return [ev.StepDone(step.id, known.attempt or 1, note or "signed off", self._since_last(state))]

        await self._store.append(sign)

    @property
    def _unwanted(self) -> str:
        """Why what is about to begin is not to; empty where it is."""
        if self._aborting.began:
            return "an abort is being confirmed, or under way"
        return "it was stopped" if self._work.unwanted else ""

    def _require_wanted(self) -> None:
        if why := self._unwanted:
            raise Refused(why, next="see what becomes of it" if self._aborting.began else "n begins it again")

    async def decide(self, step_id: str, took_effect: bool, note: str) -> Answer:
        """A person looked how a step ended of which the database does not tell."""

        def decided(state: WindowState) -> Sequence[ev.Fact]:
            self._require_wanted()
            known = state.step(step_id)
            if known.status is not StepStatus.UNKNOWN:
                raise Refused(f"{step_id} is {known.status}: there is nothing to decide")
            said = f"decided by {self._store.actor}: {note}"
            if took_effect:
                return [ev.StepDone(step_id, known.attempt, f"it took effect, {said}", 0.0)]
            return [ev.StepFailed(step_id, known.attempt, f"it did not take effect, {said}", 0.0, again=True)]

        with self._work.begins(step_id):
            await self._store.append(decided)
        return Answer(True, f"{step_id}: decided that it {'took' if took_effect else 'did not take'} effect")

    def _since_last(self, state: WindowState) -> float:
        """Seconds since the step before ended, or the window opened: what a person's step took at most."""
        instants = [step.ended_at for step in state.steps.values() if step.ended_at is not None]
        since = max(instants, default=state.opened_at)
        return max(0.0, (self._ground.clock.now() - since).total_seconds()) if since else 0.0
