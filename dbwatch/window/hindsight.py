"""What the journal knows of the abort under way, and of what came before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.window.prediction import Prediction

FOR_ABORT = "abort"
"""The reason for which a driver takes the wheel whose first act is to take everything back."""


def fenced_already(events: Sequence[Event], epoch: int) -> bool:
    """Whether *epoch* was taken for an abort and nothing was begun in it: no work of ours is left to fence out. Pure.

    So a process that enters a window to abort it does not take a second epoch, and its plan told the truth.
    """
    since = [event.fact for event in events if event.epoch == epoch]
    took = next((fact for fact in since if isinstance(fact, ev.DriverTook)), None)
    return took is not None and took.reason == FOR_ABORT and not any(isinstance(f, ev.StepStarted) for f in since)


def foreseen_of(events: Sequence[Event]) -> Prediction | None:
    """What was shown before the abort that was confirmed last. Pure."""
    confirmed = next((e.fact for e in reversed(events) if isinstance(e.fact, ev.AbortConfirmed)), None)
    return Prediction.of(confirmed.prediction) if confirmed is not None and confirmed.prediction else None


def sent_alone(events: Sequence[Event], step: str, applied: frozenset[str]) -> str:
    """The SQL of what a downgrade of *step* sent since a person last confirmed the abort, that commits by itself and
    belongs to a revision that is still *applied*; empty: nothing. Pure."""
    for event in reversed(events):
        match event.fact:
            case ev.AbortConfirmed():
                return ""
            case ev.SentAlone() as fact if fact.step == step and fact.attempt < 0 and fact.revision in applied:
                return fact.sql
    return ""
