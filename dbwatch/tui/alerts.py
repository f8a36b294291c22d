"""What a person must not overlook, in one sentence: trouble, a silent driver, what waits for them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.text import age
from dbwatch.tui.allowed import driver_of, own_proposal, persons_action, proposed, short
from dbwatch.tui.clocks import since
from dbwatch.window.feed import WindowView

FRESH_S = 60.0
"""So long a lost wheel is told."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to be told loudly."""

    text: str
    name: str
    """What it is about: a new name rings the bell, a growing age does not."""
    bad: bool = False


def alert(view: WindowView | None) -> Alert | None:
    """The most pressing thing that this window has to say; None where there is nothing."""
    if view is None or not view.state.open:
        return None
    found = _trouble(view) or (_at_the_wheel(view) if view.driving else _looking_on(view))
    if found is None and view.trouble:
        return _lost(view)
    return found


def _trouble(view: WindowView) -> Alert | None:
    if view.trouble and view.driving:
        return Alert(view.trouble, "trouble", bad=True)
    if view.journal_trouble:
        said = f"the journal is kept in the mirror only: {view.journal_trouble}"
        return Alert(
            said if view.driving else f"the journal cannot be read: {view.journal_trouble}", "journal", bad=True
        )
    if not view.driving and view.silent_s is not None:
        said = f"{driver_of(view)} was not heard of for {age(view.silent_s)}: T takes the wheel"
        return Alert(said, f"silent {view.state.epoch}", bad=True)
    return None


def _looking_on(view: WindowView) -> Alert | None:
    proposal = proposed(view)
    if proposal is not None and own_proposal(proposal, view):
        said = f"{proposal.step} waits for a second person's word: somebody else than {short(view.actor)}"
        return Alert(said, f"proposal {proposal.seq}")
    if proposal is not None:
        said = f"{short(proposal.actor)} proposes {proposal.step} and waits for you: n confirms or declines"
        return Alert(said, f"proposal {proposal.seq}")
    if view.state.aborting:
        return Alert(f"{driver_of(view)} takes this window back: A shows how far it is", "abort")
    return None


def _at_the_wheel(view: WindowView) -> Alert | None:
    if (action := persons_action(view)) is not None:
        said = f"the abort waits for a person: {action.body.get('title')}; n signs it off"
        return Alert(said, f"person {action.number}")
    unknown = next((s.id for s in view.state.steps.values() if s.status is StepStatus.UNKNOWN and not s.undone), None)
    if unknown is not None and view.state.abort is None:
        return Alert(f"nobody knows how {unknown} ended: n shows what is known", f"unknown {unknown}", bad=True)
    proposal = proposed(view)
    if proposal is not None:
        whom = ", ".join(short(actor) for actor in view.navigators)
        waits = f"{proposal.step} waits for a second person's word"
        there = f": {whom} can give it" if whom else ": nobody else is at this window (dbwatch attach)"
        return Alert(f"{waits}{there}; X takes it back", f"proposal {proposal.seq}")
    if view.edited:
        said = "the runbook's file was edited: E shows the difference"
        said = said if view.edited_sha else "the runbook's file was edited and cannot be read: E shows why"
        return Alert(said, f"edited {view.edited_sha}")
    return None


def _lost(view: WindowView) -> Alert | None:
    """For a while: who took the wheel stands in the header, and when and why in the journal."""
    took = next((e for e in reversed(view.events) if isinstance(e.fact, ev.DriverTook)), None)
    if took is not None and (since(view, took.at) or 0.0) > FRESH_S:
        return None
    return Alert(
        f"{driver_of(view)} drives now, T takes the wheel back: {view.trouble}", f"lost {view.state.epoch}", True
    )
