"""What a migration left behind: what is ours, by the DDL we journalled, and what is somebody else's. Pure.

Ours is what our own DDL named (and, where an OID was recorded, what still has that OID), with what goes along with
it unasked: a created table's columns and constraints, a serial's sequence, a partitioned index's partitions, the
privileges and comments of what we named. A colleague's index or partition is not ours, on our own table neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dbwatch.migration.ddl import Action, JournalledDdl, Named
from dbwatch.migration.fingerprint import Change, Difference, Fingerprint, Item, carried_by, diff


@dataclass(frozen=True, slots=True)
class Leftover:
    """A difference that our own DDL explains."""

    difference: Difference
    revision: str | None
    """Whose DDL named it last; None for DDL outside of any revision (the version table)."""
    created: bool
    """Our DDL made it, so that it may be dropped; False for what was there under any name before."""


@dataclass(frozen=True, slots=True)
class Residue:
    """Everything that differs between two fingerprints, by whose it is."""

    ours: tuple[Leftover, ...]
    not_ours: tuple[Difference, ...]
    """Never dropped by us: partitions, other people's indexes."""

    @property
    def empty(self) -> bool:
        """The schema is as it was."""
        return not self.ours and not self.not_ours

    def outside(self, revisions: Iterable[str]) -> Residue:
        """Without what the DDL of *revisions* explains: those that are committed, and that a downgrade takes back."""
        kept = set(revisions)
        return Residue(tuple(left for left in self.ours if left.revision not in kept), self.not_ours)


def residue(before: Fingerprint, after: Fingerprint, ddl: Sequence[JournalledDdl]) -> Residue:
    """What is left of *ddl* in *after*, and what else differs from *before*."""
    differences = diff(before, after)
    named = [(one, statement.revision) for statement in ddl for one in statement.objects]
    ours: dict[str, Leftover] = {}
    for difference in differences:
        explained = [(one, revision) for one, revision in named if names(one, difference)]
        if explained:
            created = difference.kind is Change.ADDED and any(one.action is Action.CREATE for one, _ in explained)
            ours[difference.item.key] = Leftover(difference, explained[-1][1], created)
    carriers = carried_by({**before.items, **after.items}.values())
    touched = {(one.kind, one.name, one.parent or ""): revision for one, revision in named}
    while along := {
        difference.item.key: brought
        for difference in differences
        if difference.item.key not in ours
        and (brought := _brought_along(difference, carriers(difference.item), ours, touched))
    }:
        ours.update(along)
    return Residue(
        tuple(ours[difference.item.key] for difference in differences if difference.item.key in ours),
        tuple(difference for difference in differences if difference.item.key not in ours),
    )


def names(one: Named, difference: Difference) -> bool:
    """Whether *one* is the object of *difference*; what the statement left open (schema, table, OID) may be any."""
    item = difference.item
    return (
        bool(one.name)
        and one.kind == item.kind
        and (one.name == item.name or _numbered(one, item))
        and one.schema in (None, item.schema)
        and one.parent in (None, item.parent)
        and (one.oid in (None, item.oid) or difference.kind is Change.REMOVED)
    )


def _numbered(one: Named, item: Item) -> bool:
    """REINDEX CONCURRENTLY numbers what it makes where an earlier one left something: `idx_ccnew1`."""
    return one.name.endswith(("_ccnew", "_ccold")) and item.name.rstrip("0123456789") == one.name


_Touched = Mapping[tuple[str, str, str], str | None]
"""Revisions by the kind, name and parent of what their DDL named."""


def _brought_along(
    difference: Difference, carriers: Sequence[Item], ours: Mapping[str, Leftover], touched: _Touched
) -> Leftover | None:
    """*difference* as a consequence of what our DDL did to a carrier of it; None where it is somebody's own."""
    item = difference.item
    attached = item.kind != "table" and item.kind in [carrier.kind for carrier in carriers]
    for carrier in carriers:
        left = ours.get(carrier.key)
        if left is not None and difference.kind is left.difference.kind is Change.REMOVED:
            return Leftover(difference, left.revision, created=False)
        if left is not None and left.created and (item.kind in _UNASKED or attached):
            return Leftover(difference, left.revision, created=difference.kind is Change.ADDED)
        spot = (carrier.kind, carrier.name, carrier.parent)
        if spot in touched and (item.kind in _SHARED or carrier.kind in ("column", "constraint")):
            return Leftover(difference, touched[spot], created=False)
    return None


_UNASKED = frozenset({"column", "constraint", "sequence", "privileges", "comment", "compression"})
"""Kinds that come with the object that carries them. An index, a trigger, a policy or a partition is its maker's,
unless what carries it is of its own kind: the indexes of partitions under the index of their parent."""

_SHARED = frozenset({"privileges", "comment", "compression"})
"""Kinds that change with a statement that names their carrier. So do a column's NOT NULL, which 18 keeps as a
constraint of its own, and the columns and constraints that a child inherits."""
