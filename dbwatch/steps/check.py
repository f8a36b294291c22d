"""A check: one value from a query, compared with what the runbook expects."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg.rows import tuple_row

from dbwatch.postgres.session import Connection, Role
from dbwatch.runbook.model import Check
from dbwatch.steps.statement import deadline_s, stoppable
from dbwatch.steps.step import Done, Failed, Kit, Outcome
from dbwatch.text import one_line


async def run(spec: Check, kit: Kit) -> Outcome:
    """Runs the query in a read only transaction; done where its value is the expected one."""
    session = await kit.connector.open(Role.WORKER, limits=kit.limits)
    try:
        found = await stoppable(
            session,
            lambda connection: _value(connection, spec.sql),
            control=kit.control,
            stop=kit.stop,
            within=deadline_s(kit.limits),
        )
    finally:
        await session.close()
    return verdict(found, spec.expect)


async def recover(spec: Check, kit: Kit) -> Outcome:
    """A check changes nothing: it can be run again."""
    del spec, kit
    return Failed("it was cut off while it ran; a check changes nothing", again=True)


def verdict(found: tuple[Any, ...] | None, expected: float | str | bool) -> Outcome:
    """Whether the first column of the first row is the expected value. Pure."""
    if found is None:
        return Failed(f"the query gave no row, expected {expected}", again=True)
    value = found[0]
    if equal(value, expected):
        return Done(f"{shown(value)}, as expected")
    return Failed(f"the query gave {shown(value)}, expected {shown(expected)}", again=True)


def equal(value: Any, expected: float | str | bool) -> bool:
    """Equality as a DBA means it: numbers by value, everything else by its text; NULL equals nothing."""
    if value is None or isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | float | Decimal) and isinstance(expected, int | float):
        return Decimal(str(value)) == Decimal(str(expected))
    return str(value) == str(expected)


def shown(value: Any) -> str:
    """A value for a sentence."""
    return "NULL" if value is None else one_line(str(value), 200)


async def _value(connection: Connection, query: str) -> tuple[Any, ...] | None:
    async with connection.transaction():
        await connection.execute("SET TRANSACTION READ ONLY")
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query.encode())
            return await cursor.fetchone() if cursor.description else None
