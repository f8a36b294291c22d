"""What may be done next, and why not. Pure: decided on the folded state alone."""

from __future__ import annotations

from dbwatch.journal.fold import StepStatus, WindowState
from dbwatch.runbook.model import Backfill, Manual, Runbook, Sql, Step
from dbwatch.steps.statement import alone

OVER = (StepStatus.DONE, StepStatus.WAIVED)


def next_step(state: WindowState, runbook: Runbook) -> Step | None:
    """The first step that is not over; None where all are."""
    return next((s for s in runbook.steps() if state.step(s.id).status not in OVER), None)


def may_have_done(state: WindowState, runbook: Runbook, step_id: str) -> bool:
    """Whether the step may have done anything; a statement that failed was rolled back, if it did not stand alone."""
    in_transaction = any(isinstance(s, Sql) and s.id == step_id and not alone(s.sql) for s in runbook.steps())
    rolled_back = (StepStatus.FAILED,) if in_transaction else ()
    return state.step(step_id).status not in (StepStatus.PENDING, StepStatus.WAIVED, *rolled_back)


def refusal(state: WindowState, runbook: Runbook, step: Step) -> str:
    """Why *step* may not begin now; empty where it may."""
    if not state.open:
        return "the window is closed"
    if state.abort is not None and not state.abort.finished:
        return "an abort is under way"
    if state.running is not None:
        return f"{state.running.id} is running"
    known = state.step(step.id)
    if known.status in OVER:
        return f"{step.id} is {known.status} already" + (" and was taken back" if known.undone else "")
    if state.abort is not None:
        return "this window was taken back; close it and open a new one"
    first = next_step(state, runbook)
    if first is not None and first.id != step.id:
        return f"{first.id} comes first"
    if known.status is StepStatus.UNKNOWN:
        question = f"nobody knows whether {step.id} took effect ({known.text})"
        return f"{question}; sign it off if it did, else A shows the way back"
    if known.status is StepStatus.FAILED and not known.again:
        return f"running {step.id} again is not safe ({known.text}); A shows the way back"
    return ""


def unconfirmed(state: WindowState, step: Step) -> str:
    """Why *step* may not begin for want of a second person's word; empty where it has it, or needs none."""
    if step.confirm is None:
        return ""
    proposal = state.proposal
    if proposal is not None and proposal.step == step.id and proposal.confirmed_by:
        return ""
    return f"{step.id} waits for a second person's word"


def uncertified(state: WindowState, step: Step, status: str = "", held: int = 0) -> str:
    """Why *step* may not begin for want of the certificate that it requires; empty where it has it.

    The backfill that was certified has that *status* now, and holds so many rows in quarantine.
    """
    of = step.certificate
    if of is None:
        return ""
    known = state.step(of)
    certificate = known.certificate
    wants = f"{step.id} requires the certificate of {of}"
    waive = f"or amend the runbook: leave certificate out of {step.id}"
    if certificate is None or known.undone:
        return f"{wants}, and there is none; run {of} to its end, {waive}"
    if status != "done":
        return f"{wants}, which does not stand any more: its backfill {certificate.backfill} is {status} now; {waive}"
    if held <= step.tolerates:
        return ""
    rows = "1 row" if held == 1 else f"{held:,} rows"
    retry = f"dbwatch backfill retry --id {certificate.backfill} tries them again"
    return f"{wants}, which left {rows} in quarantine: {retry}; or amend the runbook: tolerates = {held} in {step.id}"


def amendment_refusal(state: WindowState, old: Runbook, new: Runbook) -> str:
    """Why *new* cannot take the place of *old* now; empty where it can.

    What has begun stays as it was, in its order: the journal speaks of those steps.
    """
    if new.title != old.title:
        return "the title names the window, and may not change"
    if state.abort is not None:
        return "this window is being taken back, or was"
    begun = [s for s in old.steps() if state.step(s.id).status is not StepStatus.PENDING]
    changed = next((s.id for s, now in zip(begun, new.steps(), strict=False) if s != now), None)
    if changed is None and len(begun) > len(list(new.steps())):
        changed = begun[-1].id
    return f"{changed} has begun already, and stays as it was, in its place" if changed else ""


def sign_off_refusal(state: WindowState, runbook: Runbook, step: Step) -> str:
    """Why *step* may not be signed off now; empty where it may.

    Signing off a step of which nobody knows whether it took effect says that it did.
    """
    if state.step(step.id).status is StepStatus.UNKNOWN:
        return ""
    if not isinstance(step, Manual):
        return f"{step.id} is not a person's step"
    return refusal(state, runbook, step)


def next_backfill(state: WindowState, runbook: Runbook) -> Backfill | str:
    """The backfill that `b` would start now, or why there is none."""
    first = next_step(state, runbook)
    if isinstance(first, Backfill):
        return first
    later = next((s for s in runbook.steps() if isinstance(s, Backfill) and state.step(s.id).status not in OVER), None)
    if later is None or first is None:
        return "no backfill is left to do"
    return f"{first.id} comes before {later.id}"


def running_words(state: WindowState) -> str:
    """What of ours runs now, for the question before leaving; empty where nothing does."""
    if state.aborting:
        return "the abort"
    step = state.running
    return step.id if step is not None else ""
