"""The window's state: the fold of its events. Pure; the same events give the same state, on every screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It was running when its driver vanished; a person decides."""
    WAIVED = "waived"


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of the checklist, as the journal knows it."""

    id: str
    status: StepStatus = StepStatus.PENDING
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float | None = None
    """How long the last attempt took, by the driver's monotonic clock."""
    actor: str = ""
    """Who started it."""
    text: str = ""
    """Its result, its error, or the latest thing noted of it."""
    again: bool = True
    """Whether running it (again) is safe."""
    heads_before: tuple[str, ...] = ()
    """Where its first attempt began: one that failed may have committed revisions."""
    heads_after: tuple[str, ...] = ()
    signed: bool = False
    """A person did it and signed it off; nothing of ours ran."""
    undone: bool = False
    """An abort took it back."""
    certificate: ev.BackfillCertified | None = None
    """Of a backfill that is complete."""
    alone: tuple[tuple[str, str], ...] = ()
    """Revision and SQL of what its last attempt sent that commits by itself, and that no catalogue shows."""


class ActionStatus(StrEnum):
    """Where an action of an abort stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ActionState:
    """One action of the abort that was confirmed."""

    number: int
    body: Mapping[str, Any]
    """The action as the plan wrote it."""
    status: ActionStatus = ActionStatus.WAITING
    started_at: datetime | None = None
    seconds: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class AbortState:
    """An abort under way, or over."""

    confirmed_at: datetime
    actor: str
    estimate_s: float
    actions: tuple[ActionState, ...]
    finished: bool = False
    equal: bool | None = None
    differences: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step that waits for a second person's word."""

    seq: int
    """The proposal's event; an answer names it."""
    step: str
    actor: str
    """Who proposed it."""
    at: datetime
    why: str
    note: str = ""
    confirmed_by: str = ""
    """Who confirmed it; empty: nobody yet."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a navigator asked of the driver, not answered yet."""

    seq: int
    act: str
    actor: str
    at: datetime
    digest: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class WindowState:
    """Everything the journal says of a window."""

    title: str = ""
    database: str = ""
    seq: int = 0
    """The seq of the last event folded; 0: nothing yet."""
    head_hash: str = ""
    epoch: int = 0
    driver: str = ""
    opened_at: datetime | None = None
    start_heads: tuple[str, ...] = ()
    fingerprint: str = ""
    runbook_sha: str = ""
    steps: Mapping[str, StepState] = field(default_factory=lambda: MappingProxyType({}))
    """Only steps that something happened to; ask by `step()`."""
    ddl: tuple[ev.DdlSeen, ...] = ()
    """Our DDL in the order in which it was sent, each statement as it was last heard of."""
    proposal: Proposal | None = None
    requests: tuple[Request, ...] = ()
    """Not answered, in the order in which they came. A new driver begins without them."""
    abort: AbortState | None = None
    rewound: bool = False
    broken: int = 0
    """The first event that does not follow from the one before it, as far as that was told; 0: none."""
    closed_at: datetime | None = None
    outcome: str = ""

    def step(self, step_id: str) -> StepState:
        """The state of a step; pending where nothing happened to it yet."""
        return self.steps.get(step_id) or StepState(step_id)

    @property
    def open(self) -> bool:
        return self.opened_at is not None and self.closed_at is None

    @property
    def running(self) -> StepState | None:
        """The step that runs now; at most one does."""
        return next((s for s in self.steps.values() if s.status is StepStatus.RUNNING), None)

    @property
    def aborting(self) -> bool:
        return self.abort is not None and not self.abort.finished


def fold(events: Iterable[Event], state: WindowState | None = None) -> WindowState:
    """*state* (or nothing yet) after *events*, in their order."""
    result = state or WindowState()
    for event in events:
        result = _after(result, event)
    return result


_NEVER_LATE = (ev.DdlSeen, ev.SentAlone, ev.JournalRewound, ev.JournalBroken)
"""What is true whenever it is said: what we made or sent, and that the journal went back or was edited."""


def _after(state: WindowState, event: Event) -> WindowState:
    late = event.epoch < state.epoch and not isinstance(event.fact, _NEVER_LATE)
    state = replace(state, seq=event.seq, head_hash=event.hash, epoch=max(state.epoch, event.epoch))
    if late:  # from an earlier driver's mirror: others have gone on from what they found, so it changes nothing now
        return state
    match event.fact:
        case ev.WindowOpened() as fact:
            return replace(
                state,
                title=fact.title,
                database=fact.database,
                opened_at=event.at,
                driver=event.actor,
                start_heads=tuple(fact.heads),
                fingerprint=fact.fingerprint,
                runbook_sha=fact.runbook_sha,
            )
        case ev.DriverTook() as fact:
            return replace(state, driver=fact.driver, proposal=None, requests=())
        case ev.RunbookAmended() as fact:  # what was proposed before, and a word given for it, speak of another text
            return replace(state, runbook_sha=fact.runbook_sha, proposal=None)
        case ev.DdlSeen() as fact:
            return replace(state, ddl=_ddl_after(state.ddl, fact))
        case ev.SentAlone() as fact:
            return _sent_alone(state, fact)
        case ev.JournalRewound():
            return replace(state, rewound=True)
        case ev.JournalBroken() as fact:
            return replace(state, broken=fact.seq)
        case ev.WindowClosed() as fact:
            return replace(state, closed_at=event.at, outcome=fact.outcome)
        case ev.ConfirmationAsked() as fact:
            proposal = Proposal(event.seq, fact.step, event.actor, event.at, fact.why, fact.note)
            return replace(state, proposal=proposal)
        case ev.ConfirmationGiven() | ev.ConfirmationRefused() as fact:
            return replace(state, proposal=_answered(state.proposal, fact, event.actor))
        case ev.Requested() as fact:
            request = Request(event.seq, fact.act, event.actor, event.at, fact.digest, fact.step)
            return replace(state, requests=(*state.requests, request))
        case ev.RequestAnswered() as fact:
            return replace(state, requests=tuple(r for r in state.requests if r.seq != fact.request))
        case ev.BackfillCertified() as fact:
            return _with_step(state, replace(state.step(fact.step), certificate=fact))
        case ev.StepStarted() | ev.StepDone() | ev.StepFailed() | ev.StepUnknown() | ev.StepNoted() as fact:
            if state.proposal is not None and state.proposal.step == fact.step:
                state = replace(state, proposal=None)
            return _with_step(state, _step_after(state.step(fact.step), event))
        case (
            ev.AbortConfirmed()
            | ev.AbortActionStarted()
            | ev.AbortActionNoted()
            | ev.AbortActionDone()
            | ev.AbortActionFailed()
            | (ev.AbortFinished())
        ):
            return _abort_after(state, event)
        case _:
            return state


def _answered(
    proposal: Proposal | None, fact: ev.ConfirmationGiven | ev.ConfirmationRefused, actor: str
) -> Proposal | None:
    if proposal is None or proposal.seq != fact.asked:
        return proposal
    return replace(proposal, confirmed_by=actor) if isinstance(fact, ev.ConfirmationGiven) else None


def _ddl_after(seen: tuple[ev.DdlSeen, ...], fact: ev.DdlSeen) -> tuple[ev.DdlSeen, ...]:
    def same(other: ev.DdlSeen) -> bool:
        return (other.step, other.attempt, other.n) == (fact.step, fact.attempt, fact.n)

    if any(same(other) for other in seen):
        return tuple(fact if same(other) else other for other in seen)
    return (*seen, fact)


def _sent_alone(state: WindowState, fact: ev.SentAlone) -> WindowState:
    step = state.step(fact.step)
    if step.attempt != fact.attempt or (fact.revision, fact.sql) in step.alone:
        return state
    return _with_step(state, replace(step, alone=(*step.alone, (fact.revision, fact.sql))))


def _with_step(state: WindowState, step: StepState) -> WindowState:
    return replace(state, steps=MappingProxyType({**state.steps, step.id: step}))


def _step_after(step: StepState, event: Event) -> StepState:
    match event.fact:
        case ev.StepStarted() as fact:
            first = step.attempt == 0 or step.signed or step.undone
            return StepState(
                id=step.id,
                status=StepStatus.RUNNING,
                attempt=fact.attempt,
                started_at=event.at,
                actor=event.actor,
                heads_before=tuple(fact.heads) if first else step.heads_before,
            )
        case ev.StepDone() as fact:
            return replace(
                step,
                status=StepStatus.DONE,
                attempt=fact.attempt,
                signed=step.status is StepStatus.PENDING,
                actor=step.actor or event.actor,
                started_at=step.started_at or event.at,
                ended_at=event.at,
                seconds=fact.seconds,
                text=fact.result,
                heads_after=tuple(fact.heads),
            )
        case ev.StepFailed() as fact:
            return replace(
                step,
                status=StepStatus.FAILED,
                ended_at=event.at,
                seconds=fact.seconds,
                text=fact.error,
                again=fact.again,
            )
        case ev.StepUnknown() as fact:
            return replace(step, status=StepStatus.UNKNOWN, ended_at=event.at, text=fact.reason, again=False)
        case ev.StepNoted() as fact:
            return replace(step, text=fact.text)
        case _:
            return step


def _abort_after(state: WindowState, event: Event) -> WindowState:
    fact = event.fact
    if isinstance(fact, ev.AbortConfirmed):
        actions = tuple(ActionState(n, body) for n, body in enumerate(fact.actions, 1))
        return replace(
            state, proposal=None, abort=AbortState(event.at, fact.asked_by or event.actor, fact.estimate_s, actions)
        )
    abort = state.abort
    if abort is None:
        return state
    if isinstance(fact, ev.AbortFinished):
        done = replace(
            abort, finished=True, equal=fact.equal, differences=tuple(fact.differences), seconds=fact.seconds
        )
        return _undone(replace(state, abort=done), fact)
    if not isinstance(fact, ev.AbortActionStarted | ev.AbortActionNoted | ev.AbortActionDone | ev.AbortActionFailed):
        return state
    abort = replace(abort, actions=tuple(_action_after(a, event) for a in abort.actions))
    state = replace(state, abort=abort)
    action = next((a for a in abort.actions if a.number == fact.number), None)
    step_id = str(action.body.get("step") or "") if action else ""
    if isinstance(fact, ev.AbortActionDone) and step_id in state.steps and _taken_back(abort, state.step(step_id)):
        return _with_step(state, replace(state.step(step_id), undone=True))
    return state


def _taken_back(abort: AbortState, step: StepState) -> bool:
    """Whether all actions that take *step* back are done, and its downgrade went down to where it began."""
    own = [a for a in abort.actions if a.body.get("step") == step.id and a.body.get("kind") in _TAKE_BACK]
    reached = {tuple(a.body.get("heads") or ()) for a in own if a.body.get("kind") == "downgrade"}
    return bool(own) and all(a.status is ActionStatus.DONE for a in own) and reached <= {step.heads_before}


_TAKE_BACK = ("person", "sql", "downgrade", "restore")


def _undone(state: WindowState, fact: ev.AbortFinished) -> WindowState:
    """Whichever action took them back: the steps of which nothing is left."""
    left_nothing = fact.undone
    if left_nothing is None:
        left_nothing = [step.id for step in state.steps.values() if fact.equal and not step.signed]
    steps = {id: replace(step, undone=step.undone or id in left_nothing) for id, step in state.steps.items()}
    return replace(state, steps=MappingProxyType(steps))


def _action_after(action: ActionState, event: Event) -> ActionState:
    match event.fact:
        case ev.AbortActionStarted(number=n) if n == action.number:
            return replace(action, status=ActionStatus.RUNNING, started_at=event.at, text="")
        case ev.AbortActionNoted(number=n, text=text) if n == action.number:
            return replace(action, text=text)
        case ev.AbortActionDone(number=n, result=text, seconds=taken) if n == action.number:
            return replace(action, status=ActionStatus.DONE, seconds=taken, text=text)
        case ev.AbortActionFailed(number=n, error=text, seconds=taken) if n == action.number:
            return replace(action, status=ActionStatus.FAILED, seconds=taken, text=text)
        case _:
            return action
