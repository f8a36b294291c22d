"""What the events of a window say: one frozen class per kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fact:
    """Base of what an event says. *kind* is its name in the journal; bodies are plain JSON values."""

    kind: ClassVar[str]


@dataclass(frozen=True, slots=True)
class WindowOpened(Fact):
    kind: ClassVar[str] = "window.opened"
    title: str
    database: str
    heads: list[str]
    runbook_sha: str
    fingerprint: str
    """The digest of the schema at the opening."""


@dataclass(frozen=True, slots=True)
class DriverTook(Fact):
    """Somebody took the wheel; the event's epoch is the new one."""

    kind: ClassVar[str] = "driver.took"
    driver: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunbookAmended(Fact):
    """The runbook is another from now on. It takes an open proposal back."""

    kind: ClassVar[str] = "runbook.amended"
    runbook_sha: str
    difference: str
    text: str = ""
    """The whole runbook as it is from now on, with ${VAR} unexpanded."""


@dataclass(frozen=True, slots=True)
class StepStarted(Fact):
    kind: ClassVar[str] = "step.started"
    step: str
    attempt: int
    heads: list[str] = field(default_factory=list)
    """Alembic heads before a migrate step."""


@dataclass(frozen=True, slots=True)
class StepDone(Fact):
    kind: ClassVar[str] = "step.done"
    step: str
    attempt: int
    result: str
    seconds: float
    heads: list[str] = field(default_factory=list)
    """Alembic heads after a migrate step."""


@dataclass(frozen=True, slots=True)
class StepFailed(Fact):
    kind: ClassVar[str] = "step.failed"
    step: str
    attempt: int
    error: str
    seconds: float
    again: bool
    """Whether running it once more is safe."""
    stopped: bool = False
    """A person stopped it; it did not fail by itself."""


@dataclass(frozen=True, slots=True)
class StepUnknown(Fact):
    """The step was running when its driver vanished, and the database does not tell how it ended."""

    kind: ClassVar[str] = "step.unknown"
    step: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class DdlSeen(Fact):
    """A DDL statement of a migrate or sql step: written when it is sent, and again with OIDs when it is through.

    What such a statement made is ours; nothing else is ever dropped by an abort.
    """

    kind: ClassVar[str] = "ddl.seen"
    step: str
    attempt: int
    n: int
    """The statement's number within the attempt."""
    revision: str
    sql: str
    autocommit: bool
    """It commits by itself: no rollback takes it back."""
    done: bool
    known: bool
    """False where the grammar could not tell what it touches."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    """What it names, with OIDs where they are known."""


@dataclass(frozen=True, slots=True)
class SentAlone(Fact):
    """A statement of a migrate step, or of its downgrade, that commits by itself and changes what no catalogue shows
    (rows, roles): written before it is sent, for nobody can tell afterwards whether it was."""

    kind: ClassVar[str] = "sent.alone"
    step: str
    attempt: int
    """Below 0 on the way back, as in `DdlSeen`."""
    revision: str
    sql: str


@dataclass(frozen=True, slots=True)
class StepNoted(Fact):
    """Something worth keeping happened while the step ran: a retry, a pause of the backfill, a speed."""

    kind: ClassVar[str] = "step.noted"
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class BackfillCertified(Fact):
    """A backfill is complete: what it did, and what it left. Later steps may require it."""

    kind: ClassVar[str] = "backfill.certified"
    step: str
    backfill: int
    """Its number in `dbwatch.backfill`: what it holds in quarantine may become less."""
    table: str
    mode: str
    rows: int
    batches: int
    seconds: float
    """Of the run that ended it; 0 where it had been ended before."""
    quarantined: int
    unfillable: int
    pending: int | None
    """Rows left besides those in quarantine; None in mode once, where nothing in a row tells."""
    same: str = ""
    """What holds for every row that it did not leave; empty: nothing was asked."""
    compared: int = 0
    """Rows of which that was found, once all was filled."""
    harm: str = ""
    """What the run did to others."""
    says: str = ""
    """All of it in a sentence."""


@dataclass(frozen=True, slots=True)
class Noted(Fact):
    """A person's note."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Marked(Fact):
    """Something happened outside that the charts should show: the application was deployed."""

    kind: ClassVar[str] = "mark"
    text: str


@dataclass(frozen=True, slots=True)
class ConfirmationAsked(Fact):
    """The driver proposes a step; it begins once a second person has confirmed it."""

    kind: ClassVar[str] = "confirmation.asked"
    step: str
    why: str
    note: str = ""
    """What a person's step is signed off with."""


@dataclass(frozen=True, slots=True)
class ConfirmationGiven(Fact):
    """A second person typed the target's name for a proposed step."""

    kind: ClassVar[str] = "confirmation.given"
    step: str
    asked: int
    """The seq of the proposal that this answers."""


@dataclass(frozen=True, slots=True)
class ConfirmationRefused(Fact):
    """A second person says no, or the driver takes the proposal back."""

    kind: ClassVar[str] = "confirmation.refused"
    step: str
    asked: int
    why: str


@dataclass(frozen=True, slots=True)
class Requested(Fact):
    """A navigator wants something that only the driver can do."""

    kind: ClassVar[str] = "requested"
    act: str
    """pause, resume, stop or abort; of older versions also backfill: pause it, or let it go on."""
    digest: str = ""
    """abort: the plan that was shown and confirmed by typing the database's name."""
    step: str = ""
    """pause and resume: the backfill that was shown."""


@dataclass(frozen=True, slots=True)
class RequestAnswered(Fact):
    """What the driver did about a request."""

    kind: ClassVar[str] = "request.answered"
    request: int
    """The seq of the request."""
    taken: bool
    text: str


@dataclass(frozen=True, slots=True)
class SessionSignalled(Fact):
    """A person cancelled or terminated somebody's session."""

    kind: ClassVar[str] = "session.signalled"
    act: str
    """cancel or terminate."""
    pid: int
    who: str
    query: str
    result: str


@dataclass(frozen=True, slots=True)
class WorkStopped(Fact):
    """A person stopped our own work and changed nothing else."""

    kind: ClassVar[str] = "work.stopped"
    what: str


@dataclass(frozen=True, slots=True)
class AbortConfirmed(Fact):
    """The plan that was shown, confirmed by typing the database's name."""

    kind: ClassVar[str] = "abort.confirmed"
    actions: list[dict[str, Any]]
    estimate_s: float
    prediction: dict[str, Any] | None = None
    """How the database will stand afterwards, as it was shown."""
    asked_by: str = ""
    """The navigator who confirmed it; empty: the driver did."""


@dataclass(frozen=True, slots=True)
class AbortActionStarted(Fact):
    kind: ClassVar[str] = "abort.action.started"
    number: int


@dataclass(frozen=True, slots=True)
class AbortActionNoted(Fact):
    """Something worth keeping happened while the action ran: a lock in the way, a server that went away."""

    kind: ClassVar[str] = "abort.action.noted"
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class AbortActionDone(Fact):
    kind: ClassVar[str] = "abort.action.done"
    number: int
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AbortActionFailed(Fact):
    kind: ClassVar[str] = "abort.action.failed"
    number: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AbortFinished(Fact):
    kind: ClassVar[str] = "abort.finished"
    equal: bool
    """The fingerprint is the one at the opening."""
    differences: list[str]
    seconds: float
    found: dict[str, Any] | None = None
    """How the database stands, in the words of the prediction; None where nobody could look."""
    missed: list[str] = field(default_factory=list)
    """Where the prediction was wrong, sentence by sentence."""
    undone: list[str] | None = None
    """The steps of which nothing is left; None where the schema is not back, or an earlier version did not say."""


@dataclass(frozen=True, slots=True)
class JournalRewound(Fact):
    """The local mirror is ahead of the table: the database was restored, or lost commits in a failover."""

    kind: ClassVar[str] = "journal.rewound"
    mirror_seq: int
    table_seq: int


@dataclass(frozen=True, slots=True)
class JournalBroken(Fact):
    """A line of the table does not follow from the one before it: somebody edited the journal."""

    kind: ClassVar[str] = "journal.broken"
    seq: int
    """The first such line."""


@dataclass(frozen=True, slots=True)
class WindowClosed(Fact):
    kind: ClassVar[str] = "window.closed"
    outcome: str
    """done, aborted or failed."""


@dataclass(frozen=True, slots=True)
class Foreign(Fact):
    """A kind that this version does not know; kept as it is."""

    kind: ClassVar[str] = "?"
    name: str
    body: str


KNOWN: dict[str, type[Fact]] = {
    cls.kind: cls
    for cls in (
        WindowOpened, DriverTook, RunbookAmended, StepStarted, StepDone, StepFailed, StepUnknown, DdlSeen, SentAlone,
        StepNoted, BackfillCertified, Noted, Marked, ConfirmationAsked, ConfirmationGiven, ConfirmationRefused,
        Requested, RequestAnswered, SessionSignalled, WorkStopped, AbortConfirmed, AbortActionStarted, AbortActionNoted,
        AbortActionDone, AbortActionFailed, AbortFinished, JournalRewound, JournalBroken,
        WindowClosed,
    )
}  # fmt: skip
