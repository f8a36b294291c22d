"""What may be done at this screen now, and why not; what a key would do just now, in the footer's words. Pure."""

from __future__ import annotations

from collections.abc import Callable

from dbwatch.backfill.progress import State
from dbwatch.journal.fold import ActionState, ActionStatus, Proposal, StepStatus
from dbwatch.runbook.model import Backfill, Manual
from dbwatch.tui.command import Refusal, Situation
from dbwatch.window import gates
from dbwatch.window.abort import ActionKind
from dbwatch.window.feed import WindowView
from dbwatch.window.intents import CloseWindow, PauseBackfill, ResumeBackfill, RunStep
from dbwatch.window.navigator import person


def next_step(view: WindowView) -> str | None:
    """The id of the first step that is not over; None where all are."""
    step = gates.next_step(view.state, view.runbook)
    return None if step is None else step.id


def short(actor: str) -> str:
    """`wei` of `wei@bastion`."""
    return actor.partition("@")[0]


def driver_of(view: WindowView) -> str:
    """Who drives, as briefly as can be told."""
    return short(view.state.driver) or "somebody else"


def persons_action(view: WindowView) -> ActionState | None:
    """The action of a running abort that waits for a person's signature; None where none does."""
    actions = view.state.abort.actions if view.state.aborting and view.state.abort is not None else ()
    running = (a for a in actions if a.status is ActionStatus.RUNNING and a.body.get("kind") == ActionKind.PERSON)
    return next(running, None)


def proposed(view: WindowView) -> Proposal | None:
    """The step that waits for a second person's word; None where none does."""
    proposal = view.state.proposal
    return proposal if proposal is not None and not proposal.confirmed_by and view.state.open else None


def own_proposal(proposal: Proposal, view: WindowView) -> bool:
    """Whether the person at this screen is the one who proposed it, on whatever machine."""
    return person(proposal.actor) == person(view.actor)


def is_signed_off(view: WindowView, step: str) -> bool:
    """Whether a person's signature ends this step."""
    return isinstance(view.runbook.step(step), Manual)


def is_unknown(view: WindowView, step: str) -> bool:
    """Whether nobody knows how this step ended: a person looks, and decides."""
    return view.state.step(step).status is StepStatus.UNKNOWN


def hands_off(view: WindowView) -> str:
    """Why nobody at this screen may start anything; empty where one may."""
    if view.state.closed_at is not None:
        return f"the window is closed: {view.state.outcome}"
    if not view.driving:
        return f"{view.state.driver or 'somebody else'} drives this window; only the driver starts and stops its steps"
    return ""


def step_refusal(view: WindowView, step: str) -> str:
    """Why *step* cannot be run, signed off, decided or confirmed at this screen now."""
    proposal = proposed(view)
    if not view.driving and proposal is not None and proposal.step == step:
        return ""
    if reason := hands_off(view):
        return reason
    if is_unknown(view, step):
        return "an abort is under way" if view.state.aborting else ""
    if (asked := view.state.proposal) is not None and asked.step == step:
        if asked.confirmed_by:
            return f"{short(asked.confirmed_by)} has confirmed {step}: it is about to begin"
        return f"{step} waits for a second person's word; X takes the proposal back"
    refuses = gates.sign_off_refusal if is_signed_off(view, step) else gates.refusal
    return refuses(view.state, view.runbook, view.runbook.step(step))


def may_close(view: WindowView) -> bool:
    """Whether nothing is left to do but to close the window: all is done, or it was taken back."""
    abort = view.state.abort
    return view.state.open and (abort.finished if abort is not None else next_step(view) is None)


# What a key would do just now


def what_next(s: Situation) -> str:
    """Of `n`."""
    if s.window is None:
        return "next"
    if not s.window.driving:
        proposal = proposed(s.window)
        return f"confirm {proposal.step}" if proposal is not None else "next"
    if (action := persons_action(s.window)) is not None:
        return f"sign off: {action.body.get('step')} undone"
    if may_close(s.window):
        return "close the window"
    step = next_step(s.window)
    return "next" if step is None else _what_step(s.window, step)


def _what_step(view: WindowView, step: str) -> str:
    if is_unknown(view, step):
        return f"decide {step}"
    if view.runbook.step(step).confirm is not None:
        return f"propose {step}"
    if is_signed_off(view, step):
        return f"sign off {step}"
    return f"run {step}{' again' if view.state.step(step).attempt else ''}"


def what_abort(s: Situation) -> str:
    """Of `A`."""
    return "show the abort" if s.window is not None and s.window.state.abort is not None else "abort"


def what_backfill(s: Situation) -> str:
    """Of `b`."""
    wish = "" if s.window is None else backfill_wish(s.window)
    if s.window is None or isinstance(wish, str):
        return "backfill"
    if isinstance(wish, RunStep):
        begun = wish.step is not None and s.window.state.step(wish.step).attempt
        return "go on with backfill" if begun else "start backfill"
    verb = "resume" if isinstance(wish, ResumeBackfill) else "pause"
    return f"{verb} backfill" if s.window.driving else f"ask to {verb}"


def what_stop(s: Situation) -> str:
    """Of `X`."""
    if s.window is None:
        return "stop ours"
    if not s.window.driving:
        return "ask to stop"
    idle = not s.window.busy and s.window.state.running is None
    proposal = proposed(s.window)
    return f"take back {proposal.step}" if idle and proposal is not None else "stop ours"


# Why a key does nothing now


def in_window(refusal: Callable[[WindowView, Situation], str]) -> Refusal:
    """A refusal that has a window to ask."""
    return lambda s: "no window is open here" if s.window is None else refusal(s.window, s)


def no_next(view: WindowView, s: Situation) -> str:
    """Of `n`."""
    if not view.driving and proposed(view) is not None:
        return ""
    if reason := hands_off(view):
        return reason
    if persons_action(view) is not None or (may_close(view) and CloseWindow in s.accepts):
        return ""
    step = next_step(view)
    return "every step is done" if step is None else step_refusal(view, step)


def no_step(view: WindowView, s: Situation) -> str:
    """Of Enter in the Plan."""
    return "put the Plan's cursor on a step" if s.step is None else step_refusal(view, s.step)


def no_backfill(view: WindowView, _: Situation) -> str:
    """Of `b`."""
    wish = backfill_wish(view)
    return wish if isinstance(wish, str) else ""


def backfill_wish(view: WindowView) -> PauseBackfill | ResumeBackfill | RunStep | str:
    """What `b` asks for just now, or why it does nothing: what the footer says is what is handed in."""
    if view.state.closed_at is not None:
        return hands_off(view)
    running, progress = view.state.running, view.backfill
    if running is not None and running.id == view.backfill_step and progress is not None:
        if progress.state.ended:
            return f"no batch of {running.id} is under way"
        return ResumeBackfill(running.id) if progress.state is State.PAUSED else PauseBackfill(running.id)
    if not view.driving:
        return f"no backfill is running, and only {driver_of(view)} can start one"
    following = gates.next_backfill(view.state, view.runbook)
    if isinstance(following, str):
        return following
    return gates.refusal(view.state, view.runbook, following) or RunStep(following.id)


def no_speed(view: WindowView, _: Situation) -> str:
    """Of `[` and `]`."""
    if reason := hands_off(view):
        return reason
    return "" if view.backfill is not None and not view.backfill.state.ended else "no backfill is running"


def no_aside(view: WindowView, _: Situation) -> str:
    """Of `v`."""
    return "" if begun(view) is not None else "no backfill of this window has begun"


def no_retry(view: WindowView, s: Situation) -> str:
    """Of `r`."""
    if reason := hands_off(view):
        return reason
    if view.busy:
        return f"{view.busy} is running: rows are tried again when it does not"
    return "" if s.aside else "v shows the rows that were set aside: put the cursor on one"


def begun(view: WindowView) -> str | None:
    """The backfill at work, else the one that was begun last; None before the first."""
    if view.backfill_step:
        return view.backfill_step
    attempted = [s.id for s in view.runbook.steps() if isinstance(s, Backfill) and view.state.step(s.id).attempt]
    return attempted[-1] if attempted else None


def no_abort(view: WindowView, _: Situation) -> str:
    """Of `A`."""
    return "" if view.state.abort is not None or view.state.open else hands_off(view)


def no_stop(view: WindowView, _: Situation) -> str:
    """Of `X`."""
    at_work = view.state.open and (view.busy or view.state.running or view.state.aborting or proposed(view))
    if at_work:
        return ""
    return "nothing of ours is running" if view.driving else f"nothing of {driver_of(view)}'s is running"


def no_words(view: WindowView, _: Situation) -> str:
    """Of `N` and `M`."""
    return "the window is closed" if view.state.closed_at is not None else ""


def no_wheel(view: WindowView, _: Situation) -> str:
    """Of `T`."""
    if view.state.closed_at is not None:
        return hands_off(view)
    return "you drive already" if view.driving else ""
