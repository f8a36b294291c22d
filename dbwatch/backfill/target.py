"""The table to be filled, as the catalogue tells of it; none of this waits for a lock on the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from dbwatch.backfill.keys import UniqueIndex
from dbwatch.errors import Refused, UsageError
from dbwatch.journal import SCHEMA
from dbwatch.postgres.queries import query
from dbwatch.postgres.roles import grant
from dbwatch.postgres.session import Session, describe
from dbwatch.text import one_line

_NO_TABLES = {
    "v": ("a view", "name the table behind it"),
    "m": ("a materialized view", "REFRESH it, or name the table behind it"),
    "f": ("a foreign table", "run the backfill on the server that holds its rows"),
    "i": ("an index", "name its table"),
    "S": ("a sequence", "name a table"),
    "c": ("a composite type", "name a table"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A table that can be filled."""

    oid: int
    schema: str
    name: str
    kind: str
    """pg_class.relkind: r, or p for a partitioned one."""
    has_rules: bool
    has_children: bool
    hides_rows: bool
    """Row-level security would hide rows from our role."""
    update_triggers: list[str]
    divided_by: list[str]
    """The columns by which it, or a partition of it, is partitioned; an expression's are not known."""
    in_recovery: bool
    read_only: bool
    role: str
    sees_all: bool

    @property
    def display(self) -> str:
        """schema.table, for a person."""
        return one_line(f"{self.schema}.{self.name}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of it."""

    number: int
    """pg_attribute.attnum: a column that is dropped and made again has another one."""
    name: str
    type: str
    collation: str | None
    """As SQL; None where the type has none."""
    generated: bool
    always_identity: bool


@dataclass(frozen=True, slots=True)
class Heap:
    """A relation that holds rows, as the catalogue tells of it."""

    oid: int
    schema: str
    name: str
    kind: str
    """pg_class.relkind: r; f is a foreign partition."""
    rows: float
    """As the last VACUUM or ANALYZE found them; -1: never."""
    pages: int
    """The same."""
    ours: bool
    """Our role may read and change all of its rows."""


@dataclass(frozen=True, slots=True)
class WalkFacts:
    """What of it decides how it is walked."""

    correlation: float | None
    """Of the key's first column with the heap, 0 to 1; None where the table was never analyzed."""
    indexes: list[str]
    """Those that an update of the columns that SET assigns has to write."""
    heap_bytes: int
    """Of it and its partitions, as the last VACUUM or ANALYZE found it."""
    indexes_all: int
    """How many indexes it has."""
    block_bytes: int
    """Of a page on this server."""


async def leaves(session: Session, target: Target, *, within: float) -> list[Heap]:
    """The partitions of *target* that hold rows; none where it is a plain table. Raises as `Session.call` does."""
    text = query("backfill-leaves", session.server_version)
    return await session.fetch(Heap, text, {"oid": target.oid}, within=within)


async def walk_facts(
    session: Session, target: Target, key: str | None, targets: Sequence[str], *, within: float
) -> WalkFacts:
    """What decides how *target* is walked while SET assigns *targets*; *key* is the first column of its key, if any.

    Raises as `Session.call` does.
    """
    asked = {
        "oid": target.oid, "schema": target.schema, "table": target.name, "key": key, "targets": list(targets),
    }  # fmt: skip
    [facts] = await session.fetch(WalkFacts, query("backfill-walk", session.server_version), asked, within=within)
    return facts


async def describe_table(session: Session, table: Sequence[str], *, within: float) -> Target:
    """The relation that *table* names.

    Raises UsageError where there is none, Refused where it cannot be filled, and as `Session.call` does.
    """
    quoted = sql.Identifier(*table).as_string()
    try:
        found = await session.fetch(
            Target, query("backfill-target", session.server_version), {"table": quoted}, within=within
        )
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(f"our role may not look at {one_line(quoted)}", why=describe(error)) from error
    if not found:
        raise UsageError(
            f"there is no table {one_line(quoted)} here", next="check the name, its schema and the database in the DSN"
        )
    _refuse(found[0])
    return found[0]


async def columns_of(session: Session, target: Target, *, within: float) -> Mapping[str, Column]:
    """Its columns by name, in order. Raises as `Session.call` does."""
    text = query("backfill-columns", session.server_version)
    return {c.name: c for c in await session.fetch(Column, text, {"oid": target.oid}, within=within)}


async def unique_indexes(session: Session, target: Target, *, within: float) -> list[UniqueIndex]:
    """Its unique indexes, the primary key first. Raises as `Session.call` does."""
    text = query("backfill-keys", session.server_version)
    return await session.fetch(UniqueIndex, text, {"oid": target.oid}, within=within)


async def require_room(session: Session, target: Target, *, within: float) -> None:
    """Raises Refused where a journal is there and our role may not make a table beside it; else as `Session.call`."""
    may = "SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = %s"
    if await session.values(may.encode(), [SCHEMA], within=within) == [(False,)]:
        raise Refused(
            f"our role {target.role} may not make a table for before-images in schema {SCHEMA}",
            next=f"{grant(f'USAGE, CREATE ON SCHEMA {SCHEMA}', target.role)}, or leave undo out",
        )


def _refuse(target: Target) -> None:
    if target.kind not in ("r", "p"):
        what, way_out = _NO_TABLES.get(target.kind, ("no table", "name a table"))
        raise Refused(f"{target.display} is {what}", next=way_out)
    if target.schema in ("pg_catalog", "information_schema", "pg_toast", SCHEMA):
        raise Refused(f"{target.display} is a system table", next="name a table of yours")
    if target.in_recovery:
        raise Refused("the server is a standby", why="nothing can be written there", next="give the primary's DSN")
    if target.read_only:
        raise Refused(
            "the server is read only",
            why="default_transaction_read_only is on for this role or database",
            next="turn it off",
        )
    if target.hides_rows:
        raise Refused(
            f"row-level security hides rows of {target.display} from our role {target.role}",
            next="use the table's owner, or a role with BYPASSRLS",
        )
    if target.has_rules:
        raise Refused(
            f"{target.display} has rewrite rules",
            why="an UPDATE there does not do what it says",
            next="replace the rules by triggers, or drop them for the time being",
        )
    if target.has_children and target.kind == "r":
        raise Refused(
            f"{target.display} has child tables that inherit from it",
            why="its unique index does not cover their rows",
            next="name the child tables one by one",
        )
