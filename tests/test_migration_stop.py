"""A lock in the way, a stop, a cancelled task and a dead parent: what they do to a running migration. Real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from alembic_projects import (
    INDEX_CONCURRENTLY,
    NO_INDEX_CONCURRENTLY,
    USERS,
    AlembicProject,
    Told,
    column,
    go,
    job,
    table,
)
from servers import Database, lives

from dbwatch.migration.events import (
    Cause,
    Connected,
    LogLine,
    Retrying,
    StatementStarted,
    Stopping,
)
from dbwatch.migration.runner import Patience
from dbwatch.migration.stopping import Ladder
from dbwatch.steps.migrate import ended
from dbwatch.steps.step import Failed


@pytest.fixture(params=["sync", "async"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> AlembicProject:
    return AlembicProject(tmp_path / "shop", asynchronous=request.param == "async")


async def test_a_lock_in_the_way_is_waited_out_with_retries(db: Database, project: AlembicProject) -> None:
    await db.sql(USERS)
    project.revision("r1", *table("extra")).revision("r2", *column("phone"))
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM users")
    told = Told()
    running = asyncio.create_task(go(db, job(project, lock_timeout_ms=100), told))
    retrying = await told.until(Retrying, lambda event: event.attempt == 3)
    assert (retrying.sqlstate, retrying.attempts, retrying.wait_s) == ("55P03", 5, 1.0)
    await holder.rollback()
    outcome = await running
    assert outcome.ok
    assert outcome.attempts == 3
    assert outcome.committed == ("r1", "r2")


async def test_retries_end_and_the_reason_stays(db18: Database, tmp_path: Path) -> None:
    await db18.sql(USERS)
    project = AlembicProject(tmp_path / "shop").revision("r1", *column("phone"))
    holder = await db18.foreign(autocommit=False)
    await holder.execute("SELECT FROM users")
    outcome = await go(db18, job(project, lock_timeout_ms=50, attempts=2))
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.sqlstate) == (Cause.DATABASE, "55P03")
    assert outcome.failure.revision == "r1"
    assert "ADD COLUMN phone" in (outcome.failure.statement or "")
    assert outcome.attempts == 2
    assert outcome.residue is not None
    assert not outcome.residue.ours


async def test_an_attempt_that_left_something_is_not_made_again(db: Database, tmp_path: Path) -> None:
    await db.sql(USERS)
    project = AlembicProject(tmp_path / "shop", tpm=True).revision(
        "r1",
        """
        op.add_column('users', sa.Column('a', sa.Text))
        with op.get_context().autocommit_block():
            op.execute("SELECT 1")
        op.execute("ALTER TABLE other ADD COLUMN b text")
        """,
    )
    await db.sql("CREATE TABLE other (id int)")
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM other")
    told = Told()
    outcome = await go(db, job(project, lock_timeout_ms=100), told)
    assert not told.all(Retrying)
    assert outcome.attempts == 1
    assert outcome.residue is not None
    assert "column public.users.a" in [left.difference.key for left in outcome.residue.ours]


COUNTED = """
    with op.get_context().autocommit_block():
        op.execute("UPDATE counter SET n = n + 1")
    op.execute("ALTER TABLE other ADD COLUMN b text")
"""
COUNTED_WITH_ALL = """
    op.execute("UPDATE counter SET n = n + 1")
    op.execute("ALTER TABLE other ADD COLUMN b text")
"""


@pytest.mark.parametrize(
    ("engine", "up"),
    [("", COUNTED), (", isolation_level='AUTOCOMMIT'", COUNTED_WITH_ALL)],
    ids=["an autocommit block", "an engine that commits all"],
)
async def test_rows_that_were_committed_on_the_way_are_not_written_again(
    db: Database, tmp_path: Path, engine: str, up: str
) -> None:
    await db.sql("CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)", "CREATE TABLE other (id int)")
    project = AlembicProject(tmp_path / "shop", engine=engine).revision("r1", up)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM other")
    told = Told()
    outcome = await go(db, job(project, lock_timeout_ms=100), told)
    assert not told.all(Retrying)
    assert await db.sql("SELECT n FROM counter") == [(1,)]
    assert outcome.alone == ("UPDATE counter SET n = n + 1",)
    end = ended(outcome)
    assert isinstance(end, Failed)
    assert not end.again
    assert "commits by itself: UPDATE counter SET n = n + 1" in end.error


async def test_rows_that_a_lock_kept_from_being_committed_are_tried_again(db: Database, tmp_path: Path) -> None:
    await db.sql("CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)", "CREATE TABLE other (id int)")
    project = AlembicProject(tmp_path / "shop").revision("r1", COUNTED)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM counter FOR UPDATE")
    told = Told()
    running = asyncio.create_task(go(db, job(project, lock_timeout_ms=100), told))
    await told.until(Retrying)
    await holder.rollback()
    outcome = await running
    assert outcome.ok
    assert outcome.alone == ()
    assert await db.sql("SELECT n FROM counter") == [(1,)]


async def test_a_lock_timeout_of_ours_does_not_break_a_concurrent_index(db: Database, tmp_path: Path) -> None:
    await db.sql(USERS)
    project = AlembicProject(tmp_path / "shop").revision("r1", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    project.revision("r2", "op.execute('CREATE TABLE limits AS SELECT current_setting($$lock_timeout$$) AS l')")
    reader = await db.foreign(autocommit=False)
    await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await reader.execute("SELECT 1")
    told = Told()
    running = asyncio.create_task(go(db, job(project, lock_timeout_ms=100, statement_timeout_ms=300), told))
    await told.statement("CREATE INDEX CONCURRENTLY")
    waiting = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
    async with asyncio.timeout(10):
        while not await db.sql(waiting):
            assert not running.done()
    await asyncio.sleep(0.5)  # longer than both limits: that nothing happens has no event to wait for
    assert await db.sql(waiting)
    await reader.rollback()
    outcome = await running
    assert outcome.ok
    assert await db.sql("SELECT l FROM limits") == [("100ms",)]


@pytest.mark.parametrize("tpm", [False, True], ids=["one transaction", "a transaction per migration"])
async def test_a_stop_in_the_middle_rolls_back_what_is_not_committed(db: Database, tmp_path: Path, tpm: bool) -> None:
    project = AlembicProject(tmp_path / "shop", tpm=tpm).revision("r1", *table("a"))
    assert (await go(db, job(project))).ok
    project.revision("r2", *table("b")).revision("r3", "op.execute('SELECT pg_sleep(60)')").revision("r4", *table("d"))
    told, stop = Told(), asyncio.Event()
    running = asyncio.create_task(go(db, job(project), told, stop))
    await told.statement("pg_sleep")
    stop.set()
    started = time.monotonic()
    outcome = await running
    assert time.monotonic() - started < 3
    assert [event.rung for event in told.all(Stopping)] == ["cancel"]
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.revision) == (Cause.STOPPED, "r3")
    assert outcome.heads_after == frozenset({"r2" if tpm else "r1"})
    assert outcome.committed == (("r2",) if tpm else ())
    assert outcome.residue is not None
    assert [left.difference.key for left in outcome.residue.ours if left.difference.item.kind == "table"] == (
        ["table public.b"] if tpm else []
    )
    assert outcome.residue.outside(outcome.committed).empty
    await _gone(db, told)


async def test_a_stop_between_two_statements_lets_no_further_one_start(db: Database, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    project = AlembicProject(tmp_path / "shop")
    project.revision(
        "r1",
        f"""
        import pathlib, time
        op.execute("CREATE TABLE first (a int)")
        print("at the gate", flush=True)
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.01)
        op.execute("CREATE TABLE second (a int)")
        """,
    )
    told, stop = Told(), asyncio.Event()
    running = asyncio.create_task(go(db, job(project), told, stop))
    await told.until(LogLine, lambda line: line.text == "at the gate")
    stop.set()
    await told.until(Stopping)
    gate.touch()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.STOPPED
    assert not any("second" in event.sql for event in told.all(StatementStarted))
    assert outcome.heads_after == frozenset()
    assert await db.sql("SELECT to_regclass('first')") == [(None,)]


async def test_the_ladder_goes_on_where_the_migration_swallows_the_cancel(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop")
    project.revision(
        "r1",
        """
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            try:
                op.execute("SELECT pg_sleep(60)")
            except BaseException as error:
                print("swallowed", type(error).__name__, flush=True)
                time.sleep(0.05)
        """,
    )
    told, stop = Told(), asyncio.Event()
    patience = Patience(ladder=Ladder(0.3, 0.3, 0.3))
    running = asyncio.create_task(go(db, job(project), told, stop, patience))
    await told.statement("pg_sleep")
    stop.set()
    outcome = await running
    assert [event.rung for event in told.all(Stopping)] == ["cancel", "interrupt", "terminate", "kill"]
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.STOPPED
    assert outcome.heads_after == frozenset()
    await _gone(db, told)


async def test_a_cancelled_index_build_leaves_a_column_and_an_invalid_index_and_says_so(
    db: Database, project: AlembicProject
) -> None:
    await db.sql(USERS)
    project.revision("r1", *table("extra"))
    assert (await go(db, job(project))).ok
    project.revision("r2", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    reader = await db.foreign(autocommit=False)
    await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await reader.execute("SELECT 1")
    told, stop = Told(), asyncio.Event()
    running = asyncio.create_task(go(db, job(project), told, stop))
    await told.statement("CREATE INDEX CONCURRENTLY")
    async with asyncio.timeout(10):
        while not await db.sql("SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"):
            assert not running.done()
    stop.set()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.STOPPED
    assert outcome.heads_after == frozenset({"r1"})
    assert outcome.residue is not None
    assert not outcome.residue.not_ours
    left = {leftover.difference.key: leftover for leftover in outcome.residue.ours}
    assert set(left) == {"column public.users.phone", "index public.users_phone"}
    assert all(leftover.created and leftover.revision == "r2" for leftover in left.values())
    assert "invalid" in left["index public.users_phone"].difference.after


async def test_what_a_reindex_of_a_table_leaves_that_was_cut_short_is_named(db: Database, tmp_path: Path) -> None:
    await db.sql(USERS)
    project = AlembicProject(tmp_path / "shop").revision(
        "r1",
        """
        with op.get_context().autocommit_block():
            op.execute("REINDEX TABLE CONCURRENTLY users")
        """,
    )
    reader = await db.foreign(autocommit=False)
    await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await reader.execute("SELECT FROM users")
    stop = asyncio.Event()
    running = asyncio.create_task(go(db, job(project), Told(), stop))
    async with asyncio.timeout(20):
        while not await db.sql("SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE '%old snapshots'"):
            assert not running.done()
    stop.set()
    end = ended(await running)
    assert isinstance(end, Failed)
    assert (end.again, end.stopped) == (False, True)
    assert end.error.endswith("index public.users_pkey_ccnew")


async def test_cancelling_the_task_ends_child_and_backend(db: Database, project: AlembicProject) -> None:
    project.revision("r1", "op.execute('SELECT pg_sleep(60)')")
    told = Told()
    running = asyncio.create_task(go(db, job(project), told))
    await told.statement("pg_sleep")
    running.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - started < 3
    await _gone(db, told)


async def test_a_dead_parent_takes_child_and_backend_with_it(any_db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", "op.execute('SELECT pg_sleep(60)')")
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_PARENT), any_db.dsn, str(project.project.config)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        child = int(await parent.stdout.readline())
        while (line := await parent.stdout.readline()) and b"pg_sleep" not in line:
            pass
    assert await lives(child)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    started = time.monotonic()
    async with asyncio.timeout(5):
        while await lives(child):
            pass
        while await any_db.sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dbwatch migrate%'"):
            pass
    assert time.monotonic() - started < 5


_PARENT = """
    import asyncio, sys
    from pathlib import Path
    from uuid import uuid4
    from dbwatch.clock import SystemClock
    from dbwatch.journal.fence import Fence
    from dbwatch.migration.events import Direction
    from dbwatch.migration.forked import spawn
    from dbwatch.migration.request import Job, Project
    from dbwatch.migration.runner import run
    from dbwatch.postgres.session import Connector

    async def watched(fd):
        process = await spawn(fd)
        print(process.pid, flush=True)
        return process

    job = Job(Project(Path(sys.argv[2])), Direction.UP, "head", Fence(uuid4(), 1))
    tell = lambda event: print(event, flush=True)
    clock, stop = SystemClock(), asyncio.Event()
    asyncio.run(run(job, Connector(sys.argv[1]), clock=clock, on_event=tell, stop=stop, spawn=watched))
"""


async def _gone(db: Database, told: Told) -> None:
    """Waits until no backend of the migration is left."""
    pids = [event.pid for event in told.all(Connected)]
    async with asyncio.timeout(5):
        while await db.sql(f"SELECT pid FROM pg_stat_activity WHERE pid = ANY ('{{{','.join(map(str, pids))}}}')"):  # noqa: S608  # numbers
            pass
