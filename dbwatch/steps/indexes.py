"""Indexes that are there and INVALID: after a statement that was to make them."""

from __future__ import annotations

from psycopg.rows import tuple_row

from dbwatch.migration import grammar
from dbwatch.migration.ddl import Action
from dbwatch.migration.unusable import Unusable
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection


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
