"""What a person wants: values that a door hands in, and the answer that it gets back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run this step; None: the next one that is not done."""

    step: str | None = None
    confirmation: str = ""
    """The database's name as a person typed it, where the step is the one past which there is no way back."""


@dataclass(frozen=True, slots=True)
class SignOff:
    """A person did the manual step *step*, or the person's action of a running abort, and says so."""

    step: str
    note: str
    confirmation: str = ""
    """As in `RunStep`."""


@dataclass(frozen=True, slots=True)
class Decide:
    """Nobody knows how *step* ended; a person looked, and says whether it took effect."""

    step: str
    took_effect: bool
    note: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """A second person's word for the step that the driver proposed: they typed the database's name."""

    proposal: int
    """Its event's seq, as it was shown."""
    confirmation: str


@dataclass(frozen=True, slots=True)
class Decline:
    """A second person says no to the proposed step, or the driver takes the proposal back."""

    proposal: int
    why: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Take the wheel; the reason may be empty only where nobody holds it any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Amend:
    """Take the runbook as its file is now; *sha* names the text whose difference was shown."""

    sha: str


@dataclass(frozen=True, slots=True)
class PauseBackfill:
    """Pause the backfill *step*, and no other that runs by then."""

    step: str


@dataclass(frozen=True, slots=True)
class ResumeBackfill:
    """Let the paused backfill *step* go on, and no other."""

    step: str


@dataclass(frozen=True, slots=True)
class ChangeSpeed:
    """Make the running backfill faster or gentler."""

    faster: bool


@dataclass(frozen=True, slots=True)
class SetBatchTime:
    """A batch of the running backfill should take so many seconds from now on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class OverrideSignal:
    """The running backfill does not heed this health signal for so many seconds; 0: it does again."""

    signal: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RetryRows:
    """Try rows again that the backfill *step* has set aside."""

    step: str
    key: str | None = None
    """The one under this key, as the journal has it; None: all of them."""


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
class Mark:
    """Something happened outside that the charts should show: the application was deployed."""

    text: str


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """All is done: close the window. Where a way back stopped before its end, only for the database's name."""

    confirmation: str = ""


Intent = (
    RunStep
    | SignOff
    | Decide
    | Confirm
    | Decline
    | TakeOver
    | Amend
    | PauseBackfill
    | ResumeBackfill
    | ChangeSpeed
    | SetBatchTime
    | OverrideSignal
    | RetryRows
    | Signal
    | StopOurs
    | Abort
    | Note
    | Mark
    | CloseWindow
)

DRIVER: frozenset[type] = frozenset(
    {
        RunStep, SignOff, Decide, Decline, Amend, PauseBackfill, ResumeBackfill, ChangeSpeed, SetBatchTime,
        OverrideSignal, RetryRows, Signal, StopOurs, Abort, Note, Mark, CloseWindow,
    }
)  # fmt: skip
"""What the desk of the one who drives takes."""

NAVIGATOR: frozenset[type] = frozenset(
    {Confirm, Decline, TakeOver, PauseBackfill, ResumeBackfill, Signal, StopOurs, Abort, Note, Mark}
)
"""What the desk of one who does not drive takes: pause, stop and abort are asked of the driver."""

ALL = DRIVER | NAVIGATOR


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an intent: whether it was taken, and one sentence for the person."""

    taken: bool
    text: str = ""
    name_needed: bool = False
    """It was not taken for want of the database's name: ask for it, and hand the intent in again with it."""
