"""`dbwatch status`, for whoever asks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from servers import Database
from story import dbwatch
from test_journal import opened

from dbwatch.cli import look
from dbwatch.journal import events as ev
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


@pytest.mark.parametrize(
    ("edit", "event"),
    [
        ("UPDATE dbwatch.event SET body = replace(body, 'two', 'too')", 3),
        ("DELETE FROM dbwatch.event WHERE seq = 4", 4),
    ],
)
async def test_a_journal_that_was_edited_is_not_told_as_if_it_were_true(
    db18: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: str, event: int
) -> None:
    async def told_now(*, as_json: bool = False) -> str:
        await asyncio.to_thread(look.status, db18.dsn, as_json=as_json)
        return capsys.readouterr().out

    store = await opened(db18.connector, tmp_path)
    await store.append(lambda _: [ev.Noted(text) for text in ("one", "two", "three")])
    await store.close()
    assert "edited" not in await told_now()
    await db18.sql(edit)
    assert f"event {event} does not follow from the one before it, or is gone" in await told_now()
    assert json.loads(await told_now(as_json=True))["broken"] == event
