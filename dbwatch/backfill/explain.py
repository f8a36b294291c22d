"""How the server would carry out a batch, by its own word: EXPLAIN alone, nothing of it is run."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from dbwatch.backfill.keys import Key
from dbwatch.backfill.pace import FIRST
from dbwatch.backfill.pages import place
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.statements import PINNED, bound
from dbwatch.postgres.session import Connection, Session, describe
from dbwatch.text import sanitize

_LIMITS = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '2s'; SET LOCAL row_security = off"


async def explained(session: Session, plan: Plan, keys: int = FIRST, *, within: float = 6.0) -> tuple[str, ...]:
    """The plan of the second batch of so many *keys*, or of as many pages as hold them, a line each; by keys of the
    first where there is no second.

    It waits for no lock longer than 100 ms; where the server does not tell, the one line says why. Raises as
    `Session.call` does where the connection went.
    """
    leg = plan.legs[0]
    statements = leg.statements

    async def work(connection: Connection) -> tuple[str, ...]:
        async with connection.transaction(force_rollback=True), psycopg.AsyncClientCursor(connection) as cursor:
            await cursor.execute(_LIMITS)
            for name, value in PINNED.items():
                text = sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value))
                await cursor.execute(text)

            async def key(question: str, lo: Key | None) -> Key | None:
                await cursor.execute(sql.SQL(question), {**bound("lo", lo), "n": keys})
                row = await cursor.fetchone()
                return None if row is None else tuple(row)

            lo: Key | None
            if leg.by_pages:
                each = leg.pages.pages_of(keys)
                lo, hi = place(each - 1), place(2 * each - 1)
            else:
                lo = await key(statements.edge(after=False, upto=False), None)
                found = await key(statements.edge(after=True, upto=False), lo) if lo is not None else None
                if found is None:
                    lo, found = None, lo or await key(statements.last(after=False, upto=False), None)
                if found is None:
                    return ("the table is empty",)
                hi = found
            update = sql.SQL("EXPLAIN (SETTINGS) ") + sql.SQL(statements.update(after=lo is not None))
            parameters: dict[str, Any] = {**bound("lo", lo), **bound("hi", hi)}
            await cursor.execute(update, parameters)
            return tuple([sanitize(str(line)) for (line,) in await cursor.fetchall()])

    try:
        return await session.call(work, within=within)
    except psycopg.errors.LockNotAvailable:
        return ("the table is locked: the server does not tell now",)
    except psycopg.Error as error:
        return (f"the server does not tell: {describe(error)}",)
