"""A downgrade that commits half-way, and is then tried again: what is done is not done twice. Real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic_projects import INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, USERS, AlembicProject, Told, go, job
from servers import Database

from dbwatch.clock import SystemClock
from dbwatch.migration.events import Direction, LogLine, Retrying
from dbwatch.migration.fingerprint import Fingerprint, diff, take
from dbwatch.migration.retry import without

DOWN = Direction.DOWN
BASE: frozenset[str] = frozenset()

HALTS = """
import pathlib, time
with op.get_context().autocommit_block():
    op.drop_index('users_phone', 'users', postgresql_concurrently=True)
here = pathlib.Path({folder!r})
(here / 'dropped').touch()
while not (here / 'go on').exists():
    time.sleep(0.02)
op.drop_column('users', 'phone')
"""
"""Waits for a test between its two halves: the first commits by itself."""

REFILL = """
op.add_column('users', sa.Column('old', sa.Text))
with op.get_context().autocommit_block():
    op.execute("UPDATE users SET old = 'refilled'")
    op.create_index('users_old', 'users', ['old'], postgresql_concurrently=True)
"""
COUNTED = """
with op.get_context().autocommit_block():
    op.execute("UPDATE counter SET n = n + 1")
op.execute("ALTER TABLE other ADD COLUMN b text")
"""
NO_OLD = """
with op.get_context().autocommit_block():
    op.drop_index('users_old', 'users', postgresql_concurrently=True)
op.drop_column('users', 'old')
"""


@pytest.fixture(params=["sync", "async"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> AlembicProject:
    return AlembicProject(tmp_path / "shop", asynchronous=request.param == "async")


async def schema(db: Database) -> Fingerprint:
    """As it is, without Alembic's own table."""
    return without(await take(db.connector, SystemClock()), ("public", "alembic_version"))


async def test_a_downgrade_goes_on_behind_what_it_had_committed(db: Database, project: AlembicProject) -> None:
    await db.sql(USERS)
    before = await schema(db)
    project.revision("r1", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    assert (await go(db, job(project))).ok
    await db.sql("DROP INDEX users_phone")
    unaware = await go(db, job(project, DOWN, BASE))
    assert not unaware.ok
    told = Told()
    outcome = await go(db, job(project, DOWN, BASE, resume=True), told)
    assert outcome.ok, outcome.failure
    assert any("done already, not sent again: DROP INDEX CONCURRENTLY" in line.text for line in told.all(LogLine))
    assert diff(before, await schema(db)) == ()


async def test_a_lock_behind_a_statement_that_committed_is_waited_out(
    db: Database, project: AlembicProject, tmp_path: Path
) -> None:
    await db.sql(USERS)
    before = await schema(db)
    project.revision("r1", INDEX_CONCURRENTLY, HALTS.format(folder=str(tmp_path)))
    assert (await go(db, job(project))).ok
    told = Told()
    back = job(project, DOWN, BASE, resume=True, lock_timeout_ms=200, attempts=20)
    running = asyncio.create_task(go(db, back, told))
    async with asyncio.timeout(20):
        while not (tmp_path / "dropped").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.02)
    report = await db.foreign("reports", autocommit=False)
    await report.execute("SELECT count(*) FROM users")
    (tmp_path / "go on").touch()
    await told.until(Retrying)
    await report.rollback()
    outcome = await running
    assert outcome.ok, outcome.failure
    assert outcome.attempts > 1
    assert diff(before, await schema(db)) == ()


async def test_rows_that_a_downgrade_committed_by_themselves_are_not_written_again(
    db: Database, project: AlembicProject
) -> None:
    await db.sql("CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)", "CREATE TABLE other (id int)")
    project.revision("r1", "pass", COUNTED)
    assert (await go(db, job(project))).ok
    report = await db.foreign("reports", autocommit=False)
    await report.execute("SELECT FROM other")
    outcome = await go(db, job(project, DOWN, BASE, resume=True, lock_timeout_ms=100, attempts=5))
    assert not outcome.ok
    assert outcome.alone == ("UPDATE counter SET n = n + 1",)
    assert await db.sql("SELECT n FROM counter") == [(1,)]


async def test_what_makes_things_again_goes_on_too_and_builds_a_broken_index_anew(
    db: Database, project: AlembicProject
) -> None:
    await db.sql(USERS, "ALTER TABLE users ADD old text", "CREATE INDEX users_old ON users (old)")
    before = await schema(db)
    project.revision("r1", NO_OLD, REFILL)
    assert (await go(db, job(project))).ok
    await db.sql(  # as a downgrade leaves it whose index build was broken off
        "ALTER TABLE users ADD old text",
        "CREATE INDEX users_old ON users (old)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_old'::regclass",
    )
    outcome = await go(db, job(project, DOWN, BASE, resume=True))
    assert outcome.ok, outcome.failure
    assert diff(before, await schema(db)) == ()
    assert await db.sql("SELECT FROM users WHERE old IS DISTINCT FROM 'refilled'") == []
    assert await db.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'users_old'::regclass") == [(True,)]


async def test_a_first_attempt_sends_everything(db: Database, project: AlembicProject) -> None:
    await db.sql(USERS)
    before = await schema(db)
    project.revision("r1", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    assert (await go(db, job(project))).ok
    told = Told()
    assert (await go(db, job(project, DOWN, BASE, resume=True), told)).ok
    assert not any("not sent again" in line.text for line in told.all(LogLine))
    assert diff(before, await schema(db)) == ()
