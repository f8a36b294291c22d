"""The SQL that takes differences back, in an order that respects what depends on what. Pure; never CASCADE.

Only what can be put back exactly gets SQL; the rest says `by hand`. Nothing here runs anything: the caller shows
the mends, has them confirmed, and then runs those.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from dbwatch.migration.fingerprint import Change, Difference, Item, carried_by
from dbwatch.migration.residue import Residue
from dbwatch.text import sanitize


@dataclass(frozen=True, slots=True)
class Mend:
    """How one difference is taken back."""

    difference: Difference
    sql: tuple[str, ...]
    """Statements, each on its own and harmless to show; empty where there is nothing to run."""
    note: str = ""
    """`goes with ...`, `by hand: ...`, or what the statement cannot bring back."""
    concurrently: bool = False
    """Run outside of a transaction, with lock_timeout and statement_timeout 0."""

    @property
    def by_hand(self) -> bool:
        """A person has to see to it."""
        return self.note.startswith("by hand")


def clean_up(residue: Residue) -> tuple[Mend, ...]:
    """How to drop what our own DDL made: each `created` leftover, and nothing else, in the order of running.

    What would take along an object that is not ours (a colleague's index on our table, or on our column) is left to
    a person.
    """
    theirs = [difference for difference in residue.not_ours if difference.kind is Change.ADDED]
    return tuple(
        Mend(mend.difference, (), f"by hand: it would take along {', '.join(victims)}, which is not ours")
        if (victims := [one.key for one in theirs if _would_take(mend.difference.item, one.item)])
        else mend
        for mend in mends([left.difference for left in residue.ours if left.created])
    )


def _would_take(ours: Item, theirs: Item) -> bool:
    """Whether dropping *ours* drops *theirs* too: it is carried by it, or seems to use the column."""
    if theirs.within == ours.key:
        return True
    same_table = (ours.schema, ours.parent) == (theirs.schema, theirs.parent)
    return ours.kind == "column" and same_table and bool(re.search(rf"\b{re.escape(ours.name)}\b", theirs.definition))


def mends(differences: Sequence[Difference]) -> tuple[Mend, ...]:
    """How to take each of *differences* back, in the order of running: first drops, then changes, then what is missing.

    A table with columns both added and gone may have had one renamed: those are left to a person, since a drop would
    lose what the column holds.
    """
    batch = {difference.item.key: difference for difference in differences}
    carriers = carried_by(difference.item for difference in differences)
    renamed = _perhaps_renamed(differences)
    found = [_one(one, [batch[item.key] for item in carriers(one.item)], renamed) for one in differences]
    return tuple(sorted(found, key=lambda mend: _order(mend.difference)))


def mend(difference: Difference) -> Mend:
    """How to take one difference back, by itself."""
    match difference.kind:
        case Change.ADDED:
            return _dropped(difference)
        case Change.REMOVED:
            return _restored(difference)
        case Change.CHANGED:
            return _changed(difference)


def _one(difference: Difference, carriers: Sequence[Difference], renamed: set[tuple[str, str]]) -> Mend:
    item = difference.item
    explicit = _is_foreign_key(item) and not item.within.startswith("constraint")  # two tables may refer to each other
    for carrier in carriers:
        if carrier.kind is difference.kind is not Change.CHANGED and not explicit:
            return Mend(difference, (), f"goes with {carrier.key}")
    if item.kind == "column" and (item.schema, item.parent) in renamed:
        return Mend(difference, (), "by hand: columns of this table came and went, perhaps one was renamed")
    return mend(difference)


def _perhaps_renamed(differences: Iterable[Difference]) -> set[tuple[str, str]]:
    seen: dict[tuple[str, str], set[Change]] = defaultdict(set)
    for difference in differences:
        if difference.item.kind == "column":
            seen[(difference.item.schema, difference.item.parent)].add(difference.kind)
    return {table for table, changes in seen.items() if {Change.ADDED, Change.REMOVED} <= changes}


_DROPS = (
    "event trigger",
    "policy",
    "trigger",
    "rule",
    "publication",
    "view",
    "materialized view",
    "statistics",
    "index",
    "foreign key",
    "constraint",
    "column",
    "foreign table",
    "table",
    "sequence",
    "aggregate",
    "procedure",
    "function",
    "domain",
    "type",
    "extension",
    "schema",
)
"""Kinds in an order in which each can be dropped: what depends comes before what it depends on."""


def _order(difference: Difference) -> tuple[int, int, int]:
    item = difference.item
    kind = "foreign key" if _is_foreign_key(item) else item.kind
    rank = _DROPS.index(kind) if kind in _DROPS else len(_DROPS)
    if difference.kind is Change.ADDED:
        return (0, rank, -item.oid)  # the youngest first: it may depend on an older one of its kind
    return (1 if difference.kind is Change.CHANGED else 2, -rank, item.oid)


def _is_foreign_key(item: Item) -> bool:
    return item.kind == "constraint" and item.definition.startswith("FOREIGN KEY")


def _name(item: Item) -> sql.Identifier:
    return sql.Identifier(item.schema, item.name) if item.schema else sql.Identifier(item.name)


def _table(item: Item) -> sql.Identifier:
    return sql.Identifier(item.schema, item.parent)


def _mend(difference: Difference, *statements: sql.Composed, note: str = "", concurrently: bool = False) -> Mend:
    texts = tuple(statement.as_string() for statement in statements)
    if any(text != sanitize(text, limit=len(text) + 1) for text in texts):
        return Mend(difference, (), "by hand: its name or definition cannot be shown as it is")
    return Mend(difference, texts, note, concurrently)


_BY_NAME = {
    "event trigger": sql.SQL("DROP EVENT TRIGGER {}"),
    "publication": sql.SQL("DROP PUBLICATION {}"),
    "view": sql.SQL("DROP VIEW {}"),
    "materialized view": sql.SQL("DROP MATERIALIZED VIEW {}"),
    "statistics": sql.SQL("DROP STATISTICS {}"),
    "foreign table": sql.SQL("DROP FOREIGN TABLE {}"),
    "table": sql.SQL("DROP TABLE {}"),
    "sequence": sql.SQL("DROP SEQUENCE {}"),
    "domain": sql.SQL("DROP DOMAIN {}"),
    "type": sql.SQL("DROP TYPE {}"),
    "extension": sql.SQL("DROP EXTENSION {}"),
    "schema": sql.SQL("DROP SCHEMA {}"),
}
_BY_TABLE = {
    "policy": sql.SQL("DROP POLICY {name} ON {table}"),
    "trigger": sql.SQL("DROP TRIGGER {name} ON {table}"),
    "rule": sql.SQL("DROP RULE {name} ON {table}"),
    "constraint": sql.SQL("ALTER TABLE {table} DROP CONSTRAINT {name}"),
    "column": sql.SQL("ALTER TABLE {table} DROP COLUMN {name}"),
}


def _dropped(difference: Difference) -> Mend:
    item = difference.item
    if item.kind == "index":
        if _partitioned(item):
            return _mend(difference, sql.SQL("DROP INDEX {}").format(_name(item)))
        return _mend(difference, sql.SQL("DROP INDEX CONCURRENTLY {}").format(_name(item)), concurrently=True)
    if item.kind in _BY_NAME:
        return _mend(difference, _BY_NAME[item.kind].format(_name(item)))
    if item.kind in _BY_TABLE:
        return _mend(difference, _BY_TABLE[item.kind].format(name=sql.Identifier(item.name), table=_table(item)))
    return Mend(difference, (), f"by hand: drop {difference.key}")


def _restored(difference: Difference) -> Mend:
    item = difference.item
    match item.kind:
        case "index" if not _partitioned(item):
            return _mend(difference, _build(item), concurrently=True)
        case "constraint":
            return _mend(difference, _constrain(item))
        case "column":
            return _column_back(difference)
    return Mend(difference, (), f"by hand: create {difference.key} again")


def _changed(difference: Difference) -> Mend:
    was, now = difference.was, difference.item
    match now.kind:
        case "index" if was is not None and not _partitioned(was):
            drop = sql.SQL("DROP INDEX CONCURRENTLY {}").format(_name(now))
            return _mend(difference, drop, _build(was), concurrently=True)
        case "constraint" if was is not None:
            drop = _BY_TABLE["constraint"].format(name=sql.Identifier(now.name), table=_table(now))
            return _mend(difference, drop, _constrain(was))
        case "column" if was is not None:
            return _column_altered(difference, was)
    return Mend(difference, (), f"by hand: set {difference.key} as it was")


def _partitioned(item: Item) -> bool:
    return "partitioned" in item.definition.split("\n")


def _build(item: Item) -> sql.Composed:
    """The server's own CREATE INDEX, made CONCURRENTLY."""
    made = item.definition.split("\n")[0]
    return _verbatim(made.replace(" INDEX ", " INDEX CONCURRENTLY ", 1))


def _constrain(item: Item) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
        _table(item), sql.Identifier(item.name), _verbatim(item.definition.split("\n")[0])
    )


def _verbatim(definition: str) -> sql.Composed:
    """Text that the server itself deparsed and quoted (pg_get_indexdef and such)."""
    return sql.Composed([sql.SQL(definition)])


@dataclass(frozen=True, slots=True)
class _Column:
    """What of a column's definition SQL here can set; None for `_column` where there is more to it."""

    type: str
    not_null: bool
    default: str | None


def _column(item: Item) -> _Column | None:
    type_, *lines = item.definition.split("\n")
    defaults = [line.removeprefix("default ") for line in lines if line.startswith("default ")]
    rest = [line for line in lines if line != "not null" and not line.startswith("default ")]
    return None if rest or len(defaults) > 1 else _Column(type_, "not null" in lines, next(iter(defaults), None))


def _column_back(difference: Difference) -> Mend:
    item, column = difference.item, _column(difference.item)
    if column is None:
        return Mend(difference, (), f"by hand: add {difference.key} again; its values do not come back")
    add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        _table(item), sql.Identifier(item.name), _verbatim(column.type)
    )
    if column.default is not None:
        add += sql.SQL(" DEFAULT ") + _verbatim(column.default)
    lacks = "; nor does its NOT NULL" if column.not_null else ""
    return _mend(difference, add, note=f"its values do not come back{lacks}")


def _column_altered(difference: Difference, was: Item) -> Mend:
    before, after = _column(was), _column(difference.item)
    if before is None or after is None or before.type != after.type:
        return Mend(difference, (), f"by hand: set {difference.key} as it was")
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} ").format(_table(was), sql.Identifier(was.name))
    statements: list[sql.Composed] = []
    if before.default is None and after.default is not None:
        statements.append(alter + sql.SQL("DROP DEFAULT"))
    elif before.default is not None and before.default != after.default:
        statements.append(alter + sql.SQL("SET DEFAULT ") + _verbatim(before.default))
    if before.not_null != after.not_null:
        statements.append(alter + sql.SQL("SET NOT NULL" if before.not_null else "DROP NOT NULL"))
    if not statements:
        return Mend(difference, (), f"by hand: set {difference.key} as it was")
    return _mend(difference, *statements)
