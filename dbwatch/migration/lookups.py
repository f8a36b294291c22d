"""Look-ups on somebody else's connection, whatever its driver: where a name leads, and what a statement made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psycopg import sql
from sqlalchemy.engine import Connection

from dbwatch.migration.ddl import Action, Named
from dbwatch.postgres.queries import query


def run(dbapi: Any, text: str) -> list[tuple[Any, ...]]:
    """Runs *text*, past SQLAlchemy's events and without parameters, whose style every driver has its own of."""
    cursor = dbapi.cursor()
    try:
        cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


def schema_of(connection: Connection | None, table: str) -> str | None:
    """The schema in which *table* is found by the connection's search_path, or would be made."""
    if connection is None:
        return None
    text = sql.SQL(query("migration-schema", 130_000).decode()).format(relation=table).as_string()
    [(current, found)] = run(connection.connection.dbapi_connection, text)
    schema = found or current
    return schema if isinstance(schema, str) else None


_MADE_IN_CURRENT_SCHEMA = frozenset(
    {"table", "view", "materialized view", "foreign table", "sequence", "type", "domain", "function", "procedure"}
    | {"aggregate", "statistics"}
)


def resolved(dbapi: Any, named: Named) -> Named:
    """*named* with the schema that the search_path gives it now."""
    if named.schema is not None:
        return named
    relation = named.parent or named.name
    text = sql.SQL(query("migration-schema", 130_000).decode()).format(relation=relation).as_string()
    [(current, found)] = run(dbapi, text)
    if named.action is Action.CREATE and named.parent is None and named.kind in _MADE_IN_CURRENT_SCHEMA:
        return replace(named, schema=current)
    return replace(named, schema=found or (current if named.parent else None))


def made(dbapi: Any, creates: Sequence[Named]) -> tuple[Named, ...]:
    """*creates* with their OIDs, and with the names that the server chose where the statement gave none."""
    made: list[Named] = []
    unnamed: dict[tuple[str, str | None, str | None], int] = {}
    for named in creates:
        if named.name:
            made.extend(_found(dbapi, named, 1))
        else:
            spot = (named.kind, named.schema, named.parent)
            unnamed[spot] = unnamed.get(spot, 0) + 1
    for (kind, schema, parent), count in unnamed.items():
        made.extend(_found(dbapi, Named(Action.CREATE, kind, schema, "", parent), count))
    return tuple(made)


_KNOWN_BY_NAME = frozenset({"table", "column", "constraint", "index"})
"""Kinds of which a schema holds one by a name; of functions there may be several."""


def in_effect(dbapi: Any, objects: Sequence[Named]) -> bool:
    """Whether all that a statement makes is there, and all that it drops is gone; False where that cannot be told."""
    return bool(objects) and all(_in_effect(dbapi, named) for named in objects)


def _in_effect(dbapi: Any, named: Named) -> bool:
    if named.kind not in _KNOWN_BY_NAME or not named.name or named.action is Action.ALTER:
        return False
    there = _found(dbapi, named, 1) if named.schema is not None else []
    if named.action is Action.DROP:
        return not there
    return bool(there) and not (named.kind == "index" and _invalid(dbapi, named))


def drop_invalid(dbapi: Any, objects: Sequence[Named]) -> tuple[str, ...]:
    """Drops the INVALID indexes by the names that a statement is to make; those names. Outside of a transaction."""
    broken = invalid(dbapi, objects)
    for named in broken:
        if named.schema is not None:
            _execute(
                dbapi,
                sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(named.schema, named.name)).as_string(),
            )
    return tuple(named.name for named in broken)


def invalid(dbapi: Any, objects: Sequence[Named]) -> tuple[Named, ...]:
    """The indexes among *objects* that are there and INVALID."""
    return tuple(named for named in objects if named.kind == "index" and named.name and _invalid(dbapi, named))


def _invalid(dbapi: Any, named: Named) -> bool:
    text = sql.SQL(query("migration-invalid", 130_000).decode())
    return bool(run(dbapi, text.format(schema=named.schema or "", name=named.name).as_string()))


def _execute(dbapi: Any, text: str) -> None:
    cursor = dbapi.cursor()
    try:
        cursor.execute(text)
    finally:
        cursor.close()


def _found(dbapi: Any, named: Named, count: int) -> list[Named]:
    text = sql.SQL(query("migration-made", 130_000).decode())
    rows = run(
        dbapi,
        text.format(
            kind=named.kind, schema=named.schema or "", name=named.name, parent=named.parent or "", count=count
        ).as_string(),
    )
    return [replace(named, name=name, oid=oid) for oid, name in rows]
