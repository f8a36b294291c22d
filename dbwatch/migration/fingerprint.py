"""An exact description of a schema, from the catalogue, and the difference between two of them.

Our own snapshot, because `pg_dump -s` leaves INVALID indexes out and other tools leave out column options, storage,
statistics targets, grants or comments. Not in it: schema `dbwatch`, members of extensions (the extension's version
is), rows, where sequences stand, and what is set for the database itself (ALTER DATABASE, ALTER ROLE .. IN DATABASE,
GRANT .. ON DATABASE); of rarer objects (operators, casts, text search, foreign servers) only that they exist. Column
order is a note: told, not compared, since no downgrade can restore it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, ServerSilent
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Connector, Role, Session, describe
from dbwatch.text import age, sanitize


class SchemaUnreadable(DbwatchError):
    """The schema could not be read within the patience given: a relation is locked, DDL keeps running, or the server
    refuses it."""

    @property
    def locked(self) -> bool:
        """A lock was in the way, which may be gone when it is tried again."""
        return isinstance(self.__cause__, errors.LockNotAvailable)


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the schema. Raw catalogue text: a proof must be exact, so the screens get `Difference`."""

    key: str
    """Unique, quoted as SQL would have it: `column public.users.phone`."""
    kind: str
    schema: str
    name: str
    parent: str
    """The relation that it belongs to, of the same schema; empty for what belongs to none."""
    within: str
    """The key of the object that carries it and takes it along when it is dropped; may be empty."""
    oid: int
    """Where it was found; not compared. Of a column, its table's."""
    definition: str


_fields = attrgetter(*(field.name for field in fields(Item)))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The schema at one instant."""

    items: Mapping[str, Item]
    notes: Mapping[str, str]
    """What is told but not compared: the order of each table's columns, by `order of SCHEMA.TABLE`."""

    @property
    def digest(self) -> str:
        """Equal for two fingerprints exactly if nothing compared differs: SHA-256 over keys and definitions."""
        total = hashlib.sha256()
        for key in sorted(self.items):
            for text in (key, self.items[key].definition):
                octets = text.encode()
                total.update(len(octets).to_bytes(8, "big") + octets)
        return total.hexdigest()

    def to_json(self) -> str:
        """As one line of JSON, for the journal: 2 MB and 20 ms for a thousand tables."""
        body = {"items": [_fields(item) for item in self.items.values()], "notes": dict(self.notes)}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """The value that `to_json` wrote. Raises ValueError where *text* is no such thing."""
        try:
            body = json.loads(text)
            items = [Item(*values) for values in body["items"]]
            return cls({item.key: item for item in items}, dict(body["notes"]))
        except (TypeError, KeyError) as error:
            raise ValueError("not a fingerprint") from error


class Change(StrEnum):
    """How an object differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that is not as it was; `key`, `before` and `after` are sanitized, line by line, for the eye."""

    key: str
    kind: Change
    before: str
    after: str
    oid: int
    """Where it is now, or was where it is gone."""
    item: Item
    """The raw object as it is now, or as it was where it is gone."""
    was: Item | None = None
    """The raw object as it was, where it changed."""


def diff(before: Fingerprint, after: Fingerprint) -> tuple[Difference, ...]:
    """What differs between two fingerprints of one database, in the order of keys. Pure."""
    found: list[Difference] = []
    for key in sorted(before.items.keys() | after.items.keys()):
        was, now = before.items.get(key), after.items.get(key)
        if was and not now:
            found.append(_difference(Change.REMOVED, was, was.definition, ""))
        elif now and not was:
            found.append(_difference(Change.ADDED, now, "", now.definition))
        elif was and now and was.definition != now.definition:
            found.append(_difference(Change.CHANGED, now, was.definition, now.definition, was))
    return tuple(found)


def reordered(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """The tables that have the same columns as before in another order: a note for the report, no difference."""
    return tuple(
        sanitize(key.removeprefix("order of "))
        for key in sorted(before.notes.keys() & after.notes.keys())
        if before.notes[key] != after.notes[key]
        and sorted(json.loads(before.notes[key])) == sorted(json.loads(after.notes[key]))
    )


_RELATIONS = frozenset({"table", "foreign table", "view", "materialized view"})


def carried_by(items: Iterable[Item]) -> Callable[[Item], tuple[Item, ...]]:
    """What, among *items*, takes an object along when it is dropped: its `within`, and the relation it belongs to.

    The two differ for what a child inherits: its column goes with the parent's column, and with the child. Pure.
    """
    by_key = {item.key: item for item in items}
    relations = {(item.schema, item.name): item for item in by_key.values() if item.kind in _RELATIONS}

    def carriers(item: Item) -> tuple[Item, ...]:
        found = (by_key.get(item.within), relations.get((item.schema, item.parent)))
        return tuple(dict.fromkeys(one for one in found if one is not None))

    return carriers


def _difference(kind: Change, item: Item, before: str, after: str, was: Item | None = None) -> Difference:
    return Difference(sanitize(item.key), kind, _lines(before), _lines(after), item.oid, item, was)


def _lines(definition: str) -> str:
    return "\n".join(sanitize(line) for line in definition.split("\n"))


_PARTS = (
    "database",
    "functions",
    "types",
    "sequences",
    "privileges",
    "comments",
    "others",
    "publications",
    "columns",
    "compression",
    "indexes",
    "constraints",
    "triggers",
    "relations",
)
"""Last what takes locks: pg_get_viewdef holds ACCESS SHARE on a view's tables to the end of the transaction."""

_PINNED = (
    b"SET LOCAL search_path = ''; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD';"
    b" SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex';"
    b" SET LOCAL quote_all_identifiers = off; SET LOCAL jit = off"
)
"""What the deparser's output depends on, as pg_dump pins it."""

_PASSING = (errors.LockNotAvailable, errors.InternalError_, errors.UndefinedTable, errors.UndefinedObject)
"""DDL under way: a lock in the way, or an object that went between the snapshot and its definition
(`cache lookup failed` is an internal error)."""

_PAUSE_S = 0.25


async def take(connector: Connector, clock: Clock, *, patience_s: float = 10.0) -> Fingerprint:
    """The schema's fingerprint, from one snapshot, on a session of its own.

    A relation that is locked (ACCESS EXCLUSIVE, held or waited for) stops the definitions: the attempt is given up
    after 100 ms and made again until *patience_s* is over. Raises SchemaUnreadable then, with the name of whoever
    is in the way, and DbwatchError as `Connector.open` and `Session.call` do.
    """
    session = await connector.open(Role.PROBE)
    try:
        until = clock.monotonic() + patience_s
        while True:
            try:
                return await session.call(_take, within=max(15.0, patience_s))
            except _PASSING as error:
                if clock.monotonic() >= until:
                    raise await _unreadable(session, error, patience_s) from error
            except psycopg.Error as error:
                raise SchemaUnreadable("the schema cannot be read", why=describe(error)) from error
            await clock.sleep(_PAUSE_S)
    finally:
        await session.close()


async def _take(connection: Connection) -> Fingerprint:
    await connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        return await read(connection)
    finally:
        if not connection.closed:
            await connection.execute(b"ROLLBACK")


async def read(connection: Connection) -> Fingerprint:
    """The fingerprint as the transaction that is open on *connection* sees it; changes settings of that transaction.

    Raises psycopg.Error: LockNotAvailable where a relation is locked.
    """
    items: dict[str, Item] = {}
    order: dict[str, list[str]] = defaultdict(list)
    await connection.execute(_PINNED)
    for part in _PARTS:
        for item in await _part(connection, part):
            items[item.key] = item
            if part == "columns":
                order[f"{item.schema}.{item.parent}"].append(item.name)
    return Fingerprint(items, {f"order of {table}": json.dumps(names) for table, names in order.items()})


async def _part(connection: Connection, part: str) -> list[Item]:
    try:
        text = query(f"fingerprint-{part}", connection.info.server_version)
    except LookupError:
        return []  # this major has no such thing
    async with connection.cursor(row_factory=class_row(Item)) as cursor:
        await cursor.execute(text)
        return await cursor.fetchall()


async def _unreadable(session: Session, error: psycopg.Error, patience_s: float) -> SchemaUnreadable:
    what = f"the schema cannot be read within {patience_s:g} s"
    if not isinstance(error, errors.LockNotAvailable):
        return SchemaUnreadable(what, why=f"it keeps changing: {describe(error)}", next="try again when no DDL runs")
    rows: list[tuple[Any, ...]] = []
    with contextlib.suppress(psycopg.Error, ServerSilent):  # the name of the holder is a courtesy
        rows = await session.values(query("fingerprint-lockers", session.server_version))
    if not rows:
        return SchemaUnreadable(what, why="a relation is locked", next="try again when no DDL runs")
    [(relation, pid, application, seconds)] = rows
    who = f"session {pid}" + (f" ({sanitize(application)})" if application else "")
    why = f"{sanitize(relation)} is locked by {who}, {age(seconds)} in its transaction"
    return SchemaUnreadable(what, why=why, next="wait until it ends, or end it, then try again")
