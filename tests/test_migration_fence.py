"""Somebody took the window over: nothing more is committed. Real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic_projects import (
    AlembicProject,
    Told,
    go,
    job,
    table,
)
from servers import Database

from dbwatch.migration.events import (
    Cause,
    Direction,
    LogLine,
)
from dbwatch.migration.request import Job
from dbwatch.postgres.session import Connector

UP = Direction.UP


@pytest.fixture(params=["sync", "async"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> AlembicProject:
    return AlembicProject(tmp_path / "shop", asynchronous=request.param == "async")


async def _journal(db: Database, fence_window: str, epoch: int) -> None:
    await db.sql(
        "CREATE SCHEMA dbwatch",
        'CREATE TABLE dbwatch."window" (id uuid PRIMARY KEY, epoch int NOT NULL)',
        f"INSERT INTO dbwatch.\"window\" VALUES ('{fence_window}', {epoch})",  # noqa: S608  # a uuid and a number
    )


TAKE_OVER = 'UPDATE dbwatch."window" SET epoch = epoch + 1'
WRITE = 'UPDATE dbwatch."window" SET epoch = epoch'


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "journal busy"])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "SERIALIZABLE"])
async def test_a_window_taken_over_meanwhile_is_noticed_before_the_commit(
    db: Database, project: AlembicProject, isolation: str, taken: bool
) -> None:
    project.engine = f", isolation_level={isolation!r}"
    project.write_env()
    project.revision("r1")
    assert (await go(db, job(project))).ok
    project.revision("r2", f"{table('a')[0]}\nop.execute('SELECT pg_advisory_xact_lock(77)')", None)
    mine = job(project)
    await _journal(db, str(mine.fence.window), mine.fence.epoch)
    gate = await db.foreign(autocommit=False)
    await gate.execute("SELECT pg_advisory_xact_lock(77)")
    told = Told()
    running = asyncio.create_task(go(db, Job(project.project, UP, "heads", mine.fence, lock_timeout_ms=0), told))
    await told.statement("pg_advisory_xact_lock")
    await db.sql(TAKE_OVER if taken else WRITE)
    await gate.rollback()
    outcome = await running
    assert outcome.ok != taken
    if outcome.failure is None:
        return
    assert outcome.failure.cause is Cause.FENCED
    assert outcome.heads_after == frozenset({"r1"})
    assert outcome.residue is not None
    assert outcome.residue.empty


async def test_in_an_autocommit_block_each_statement_is_fenced_before_it_is_sent(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision(
        "r1",
        """
        with op.get_context().autocommit_block():
            op.execute("CREATE TABLE one (a int)")
            op.execute("UPDATE dbwatch.\\"window\\" SET epoch = epoch + 1")
            op.execute("CREATE TABLE two (a int)")
        """,
    )
    mine = job(project)
    await _journal(db, str(mine.fence.window), mine.fence.epoch)
    outcome = await go(db, mine)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.FENCED
    assert await db.sql("SELECT to_regclass('one')::text, to_regclass('two')::text") == [("one", None)]


async def test_a_commit_written_as_text_is_fenced_too(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision(
        "r1",
        """
        op.execute("CREATE TABLE one (a int)")
        op.execute("UPDATE dbwatch.\\"window\\" SET epoch = epoch + 1")
        op.execute(" commit")
        """,
    )
    mine = job(project)
    await _journal(db18, str(mine.fence.window), mine.fence.epoch)
    outcome = await go(db18, mine)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.FENCED
    assert await db18.sql("SELECT to_regclass('one')") == [(None,)]


async def test_the_right_epoch_may_commit_and_a_blind_role_says_that_it_cannot_check(
    db: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    mine = job(project)
    await _journal(db, str(mine.fence.window), mine.fence.epoch)
    assert (await go(db, mine)).ok
    role = f"ddl_{db.name}"
    await db.sql(
        f"CREATE ROLE {role} LOGIN", f"GRANT ALL ON SCHEMA public TO {role}", f"GRANT ALL ON alembic_version TO {role}"
    )
    try:
        project.revision("r2", *table("b"))
        db.connector = Connector(db.dsn_as(role))
        told = Told()
        assert (await go(db, Job(project.project, UP, "heads", mine.fence), told)).ok
        assert any("epoch is not checked" in line.text for line in told.all(LogLine))
    finally:
        await db.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
