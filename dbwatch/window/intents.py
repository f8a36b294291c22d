"""What a person wants: values that a door hands in, and the answer that it gets back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run this step; None: the next one that is not done."""

    step: str | None = None


@dataclass(frozen=True, slots=True)
class SignOff:
    """A person did the manual step *step*, or the person's action of a running abort, and says so."""

    step: str
    note: str


@dataclass(frozen=True, slots=True)
class ToggleBackfill:
    """Start the next backfill; pause the one that runs; resume the one that is paused."""


@dataclass(frozen=True, slots=True)
class ChangeSpeed:
    """Make the running backfill faster or gentler."""

    faster: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """Cancel or terminate the session that a person saw and confirmed."""

    pid: int
    backend_start: datetime | None
    query_start: datetime | None
    who: str
    query: str
    terminate: bool


@dataclass(frozen=True, slots=True)
class StopOurs:
    """Stop our own work, change nothing else."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Carry out the abort plan with this digest; *confirmation* is the database's name as a person typed it."""

    digest: str
    confirmation: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the journal."""

    text: str


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """All is done: close the window."""


Intent = RunStep | SignOff | ToggleBackfill | ChangeSpeed | Signal | StopOurs | Abort | Note | CloseWindow

ALL: frozenset[type] = frozenset(
    {RunStep, SignOff, ToggleBackfill, ChangeSpeed, Signal, StopOurs, Abort, Note, CloseWindow}
)
"""What a desk that drives takes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an intent: whether it was taken, and one sentence for the person."""

    taken: bool
    text: str = ""
