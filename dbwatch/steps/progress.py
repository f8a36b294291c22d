"""What a running migrate step, or a patient one, tells of itself; the fold of the engine's events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dbwatch.migration import events as me
from dbwatch.steps.patience import Patience, note


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """A migrate step that runs, or a sql step that waits until its way is clear."""

    step: str
    revision: str
    statement: str
    number: int
    """Statements sent so far."""
    applied: tuple[str, ...]
    """Revisions run, not yet seen committed."""
    committed: tuple[str, ...]
    """Revisions that the version table tells."""
    pid: int | None
    """The backend that runs the statement."""
    waits_for: str = ""
    """In plain words, whom the statement waits for; empty where it works. Filled in where a frame is made."""
    attempt: int = 1
    attempts: int = 1
    retry_in_s: float | None = None
    """How long the wait before the next attempt is; None while one runs."""
    note: str = ""
    """The latest thing out of the ordinary: a retry's reason, a rung of the stop ladder, what is left of a patience."""
    knocks: int = 0
    """How often a patient step has tried."""
    queued_worst_s: float = 0.0
    """How long somebody queued behind one of its tries, at most; 0: nobody was seen to."""


def started(step: str, attempts: int) -> MigrationProgress:
    """A migrate step that has just begun."""
    return MigrationProgress(step, "", "", 0, (), (), None, attempts=attempts)


def after(progress: MigrationProgress, event: me.Event) -> MigrationProgress:
    """*progress* after one more event of the engine."""
    match event:
        case me.Connected(pid=pid):
            return replace(progress, pid=pid, retry_in_s=None)
        case me.StatementStarted() as e:
            return replace(progress, revision=e.revision or progress.revision, statement=e.sql, number=e.n)
        case me.Applied(revision=revision):
            return replace(progress, applied=(*progress.applied, revision))
        case me.Committed(revision=revision):
            rest = tuple(r for r in progress.applied if r != revision)
            return replace(progress, applied=rest, committed=(*progress.committed, revision))
        case me.Retrying() as e:
            note = f"{e.message}; try {e.attempt} of {e.attempts} in {e.wait_s:.1f} s"
            return replace(
                progress, attempt=e.attempt, attempts=e.attempts, retry_in_s=e.wait_s, note=note, pid=None, applied=()
            )
        case me.Stopping(rung=rung, said=said):
            return replace(progress, note=f"stopping: {rung}: {said}")
        case _:
            return progress


def patient(
    progress: MigrationProgress, patience: Patience, whom: str, pid: int | None, now: float
) -> MigrationProgress:
    """*progress* of a step that waits for *whom* before it sends anything, or knocks with the backend *pid*."""
    return replace(
        progress,
        pid=pid,
        waits_for=whom,
        note=note(patience, now),
        knocks=patience.knocks,
        queued_worst_s=patience.queued_s,
    )
