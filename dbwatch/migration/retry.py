"""Whether a failed attempt may be made again by itself, and when. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from dbwatch.migration.events import Cause, Failed, StatementStarted
from dbwatch.migration.fingerprint import Fingerprint, diff

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK_DETECTED = "40P01"
_CONNECTION_LOST = ("08", "57P")
"""How the SQLSTATEs begin after which nobody knows what became of a statement."""
_LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a second connection saw of the database at one instant; None where it could not."""

    heads: frozenset[str] | None
    fingerprint: Fingerprint | None


def in_the_way(failure: Failed) -> bool:
    """Whether it was somebody's lock, and no mistake of the migration's."""
    return failure.cause is Cause.DATABASE and failure.sqlstate in (_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED)


def may_retry(
    failure: Failed,
    attempt: int,
    attempts: int,
    before: Seen,
    after: Seen,
    version: tuple[str, str],
    *,
    alone: bool = False,
    resume: bool = False,
) -> bool:
    """Whether attempt number *attempt* (from 1) of *attempts* may be made again.

    Only after a lock, and not where something was sent that commits by itself, *alone*, and that neither heads nor
    schema would show; and only if these are seen to be what they were before it, or the next attempt can *resume* where
    this one stopped. *version*, schema and name of the version table, does not count:
    Alembic makes it before its first revision.
    """
    if not in_the_way(failure) or attempt >= attempts:
        return False
    if alone:
        return False
    if resume:
        return True
    if None in (before.heads, after.heads) or before.heads != after.heads:
        return False
    return (
        before.fingerprint is not None
        and after.fingerprint is not None
        and not diff(without(before.fingerprint, version), without(after.fingerprint, version))
    )


def sent_alone(
    lasting: Iterable[StatementStarted], done: Container[int], failure: Failed | None, committed: Container[str]
) -> tuple[str, ...]:
    """The SQL of those *lasting* statements that may have committed and would be sent once more by another attempt.

    Not what the server refused, unless the grammar cannot tell what that did before (CALL); not what belongs to the
    *committed* revisions; nor what env.py does outside of any, as often as it is run.
    """
    state = failure.sqlstate if failure is not None else None
    refused = state is not None and not state.startswith(_CONNECTION_LOST)
    return tuple(
        one.sql
        for one in lasting
        if one.revision is not None
        and one.revision not in committed
        and not (refused and one.known and one.n not in done)
    )


def pause_s(attempt: int, jitter: float) -> float:
    """Seconds to wait after attempt number *attempt* (from 1): 1, 2, 4 ... 30, half of it up to *jitter* in 0..1.

    The other side of a collision retries too: exponential back-off with jitter keeps the two apart.
    """
    whole = min(_LONGEST_S, 0.5 * 2.0**attempt)
    return whole * (0.5 + 0.5 * jitter)


def without(fingerprint: Fingerprint, table: tuple[str, str]) -> Fingerprint:
    """*fingerprint* without one table and what belongs to it."""
    schema, name = table
    kept = {
        key: item
        for key, item in fingerprint.items.items()
        if item.schema != schema or (item.parent or item.name) != name
    }
    return Fingerprint(kept, fingerprint.notes)
