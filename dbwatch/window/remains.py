"""What of ours is still there, and no applied revision accounts for: by the journalled DDL alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dbwatch.journal.events import DdlSeen
from dbwatch.migration.ddl import Action, JournalledDdl, Named
from dbwatch.migration.fingerprint import Change, Fingerprint, carried_by
from dbwatch.migration.mend import Mend, clean_up
from dbwatch.migration.residue import Leftover, Residue, names, residue


def journalled(fact: DdlSeen) -> JournalledDdl:
    """A statement of the journal as the migration engine knows it."""
    objects = tuple(Named(**{**o, "action": Action(o["action"])}) for o in fact.objects)
    return JournalledDdl(fact.sql, fact.revision or None, fact.autocommit, objects, fact.done, fact.known)


def forward(ddl: Sequence[DdlSeen]) -> list[JournalledDdl]:
    """What the steps ran; without what a way back ran, which stands under a negative attempt."""
    return [journalled(fact) for fact in ddl if fact.attempt > 0]


def left_over(
    opening: Fingerprint,
    now: Fingerprint,
    ddl: Sequence[JournalledDdl],
    steps: Sequence[JournalledDdl],
    accounted: frozenset[str | None],
) -> tuple[tuple[Mend, ...], Residue]:
    """What our DDL made and nobody accounts for, in the order to remove it; and all that differs from the opening.

    *ddl* is all of ours, the way back's too; *steps* what the steps ran; *accounted* the revisions that are applied
    (None: what Alembic itself made). What one of them made stays, whatever a later one did to it.
    """
    found = residue(opening, now, ddl)
    kept = _kept(found, opening, now, steps, accounted)
    ours = tuple(left for left in found.ours if left.difference.item.key not in kept)
    return clean_up(Residue(ours, found.not_ours)), found


def _kept(
    found: Residue,
    opening: Fingerprint,
    now: Fingerprint,
    steps: Sequence[JournalledDdl],
    accounted: frozenset[str | None],
) -> set[str]:
    kept: set[str] = set()
    orphans: dict[str, Leftover] = {}
    for left in found.ours:
        if left.difference.kind is not Change.ADDED:
            continue
        makers = [
            (statement.revision, one.action)
            for statement in steps
            for one in statement.objects
            if one.action is not Action.ALTER and names(one, left.difference)
        ]
        applied = [action for revision, action in makers if revision in accounted]
        if applied:
            if applied[-1] is Action.CREATE:
                kept.add(left.difference.item.key)
        elif not any(action is Action.CREATE for _, action in makers):
            orphans[left.difference.item.key] = left
    carriers = carried_by({**opening.items, **now.items}.values())
    while along := {
        key for key, left in orphans.items() if any(one.key in kept for one in carriers(left.difference.item))
    }:
        kept |= along
        for key in along:
            del orphans[key]
    kept |= {key for key, left in orphans.items() if left.revision in accounted}
    return kept
