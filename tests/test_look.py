"""`dbwatch status`, for whoever asks."""

from __future__ import annotations

import asyncio

from servers import Database
from story import dbwatch

from dbwatch.journal import schema


async def told(*arguments: str) -> tuple[int | None, str]:
    """The exit code of `dbwatch ...`, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *dbwatch(*arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_a_role_that_may_not_read_the_window_is_told_the_grants(db: Database) -> None:
    await schema.ensure(db.connector)
    role = f"asks_{db.name}"
    await db.sql(f"CREATE ROLE {role} LOGIN")
    try:
        grants = f"GRANT USAGE ON SCHEMA dbwatch TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA dbwatch TO {role}"
        code, said = await told("status", db.dsn_as(role))
        assert code == 4
        assert said == f"dbwatch: {role} may not read the journal; {grants}\n"
        await db.sql(*grants.split("; "))
        assert await told("status", db.dsn_as(role)) == (0, "no window was ever open here\n")
    finally:
        await db.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
