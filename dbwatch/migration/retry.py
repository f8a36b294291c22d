"""Whether a failed attempt may be made again by itself, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dbwatch.migration.events import Cause, Failed
from dbwatch.migration.fingerprint import Fingerprint, diff

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK_DETECTED = "40P01"
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
    resume: bool = False,
) -> bool:
    """Whether attempt number *attempt* (from 1) of *attempts* may be made again.

    Only after a lock, and only if the heads and the schema are seen to be what they were before it, or the next
    attempt can *resume* where this one stopped. *version*, schema and name of the version table, does not count:
    Alembic makes it before its first revision.
    """
    if not in_the_way(failure) or attempt >= attempts:
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
