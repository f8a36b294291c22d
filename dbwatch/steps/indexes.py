"""Indexes that are there and INVALID: after a statement that was to make them, or that was cut short."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.rows import tuple_row

from dbwatch.migration import grammar
from dbwatch.migration.ddl import Action
from dbwatch.migration.unusable import Unusable
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection
from dbwatch.text import sanitize


async def usable(connection: Connection, sql: str) -> None:
    """Looks, right after *sql*, at the indexes that it makes. Raises Unusable where one is INVALID."""
    made = [
        named
        for named in grammar.read(sql).named
        if named.kind == "index" and named.action is Action.CREATE and named.name and named.parent
    ]
    if not made:
        return
    wish = {
        "schemas": [named.schema or "" for named in made],
        "tables": [named.parent for named in made],
        "names": [named.name for named in made],
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query("migration-invalid-made", connection.info.server_version), wish)
        if broken := [str(name) for (name,) in await cursor.fetchall()]:
            raise Unusable(broken)


async def invalid(control: Kept) -> Mapping[int, str]:
    """Every INVALID index of the database by its OID, as the fingerprint names it, but those that are being built.

    Raises DbwatchError or psycopg.Error.
    """
    session = await control.session()
    rows = await session.values(query("migration-invalid-now", session.server_version))
    return {oid: sanitize(f"index {name}") for oid, name in rows}


def leaves_indexes(sql: str) -> bool:
    """Whether *sql*, cut short, may leave INVALID indexes that are new. What drops one is simply run again."""
    reading = grammar.read(sql)
    return reading.concurrently and not any(named.action is Action.DROP for named in reading.named)
