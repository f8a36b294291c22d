"""The key that a walk goes by: which one, how its values are compared, and how they are kept. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dbwatch.errors import Refused

Key = tuple[str, ...]
"""A key's values as the server writes them under the settings of `statements.PINNED`, one text a column."""

_EXACT = frozenset(
    {"int2", "int4", "int8", "oid", "numeric", "float4", "float8", "text", "varchar", "bpchar", "citext", "name"}
    | {"uuid", "date", "timestamp", "timestamptz", "time", "timetz", "interval", "bytea", "bool", "inet", "cidr"}
    | {"macaddr", "macaddr8", "enum", "char"}
)
"""Types whose text the server reads back as the same value under the pinned settings."""


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of the key."""

    name: str
    type: str
    """As format_type writes it: SQL."""
    collation: str | None = None
    """The index's collation where it is not the column's own: SQL. The walk has to compare as
    the index does."""


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index as `backfill-keys.sql` tells of it; arrays in the index's order."""

    index: str
    is_primary: bool
    valid: bool
    immediate: bool
    partial: bool
    on_expressions: bool
    btree: bool
    columns: list[str]
    types: list[str]
    base_types: list[str]
    collations: list[str | None]
    nullable: bool
    generated: bool
    default_order: bool
    one_direction: bool

    def obstacle(self, targets: Sequence[str], *, loose: bool = False) -> str:
        """Why a walk cannot go by it while SET assigns *targets*; empty where it can. *loose*: NULLs are no obstacle,
        for another look finds the rows that have one in their key."""
        assigned = [column for column in self.columns if column in targets]
        odd = [kind for kind in self.base_types if kind not in _EXACT]
        reasons = (
            (not self.valid, "it is invalid or being built"),
            (self.partial, "it covers only a part of the table"),
            (self.on_expressions, "it is on expressions"),
            (self.nullable and not loose, "a column of it may be NULL"),
            (not self.immediate, "it is deferrable, so that it can hold duplicates for a while"),
            (not (self.btree and self.default_order and self.one_direction), "its order is not the type's own"),
            (bool(odd), f"a text of type {', '.join(odd)} does not say its value exactly"),
            (bool(assigned), f"SET changes {', '.join(assigned)}"),
            (self.generated, "a column of it is generated, and SET may change what it is generated from"),
        )
        return next((reason for holds, reason in reasons if holds), "")

    @property
    def key(self) -> tuple[KeyColumn, ...]:
        return tuple(map(KeyColumn, self.columns, self.types, self.collations))


def choose(
    indexes: Sequence[UniqueIndex],
    targets: Sequence[str],
    wanted: tuple[str, ...] | None,
    table: str,
    *,
    loose: bool = False,
) -> UniqueIndex | None:
    """The unique index to walk by: the one on the *wanted* columns, else the primary key, else the one with the
    fewest columns, one without NULLs first.

    *loose*: rows with a NULL in their key, and a table without any key (None), are walked otherwise. Raises Refused
    where none will do, with what is the matter with each.
    """
    usable = [index for index in indexes if not index.obstacle(targets, loose=loose)]
    if wanted is not None:
        named = [index for index in indexes if set(index.columns) == set(wanted)]
        if not named:
            raise Refused(
                f"{table} has no unique index on ({', '.join(wanted)})",
                next="name the columns of one, or leave --key out",
            )
        usable = [index for index in usable if index in named]
        indexes = named
    if usable:
        return min(usable, key=lambda index: (index.nullable, not index.is_primary, len(index.columns), index.index))
    if loose and wanted is None:
        return None
    why = "; ".join(f"{index.index}: {index.obstacle(targets, loose=loose)}" for index in indexes)
    raise Refused(
        f"{table} has no key to walk by",
        why=why or "it has no primary key and no unique index",
        next="add a unique index on NOT NULL columns (CREATE UNIQUE INDEX CONCURRENTLY), and name them with --key; in"
        " mode pending, without --undo and --walk keyset, it needs none",
    )


def to_text(key: Key) -> str:
    """*key* as the journal keeps it: canonical JSON."""
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str) -> Key:
    """The key that `to_text` wrote."""
    return tuple(str(value) for value in json.loads(text))
