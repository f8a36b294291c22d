"""Running a migration: what is told, what is committed, what a lock, a stop and a dead parent do. Real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from alembic_projects import INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY, AlembicProject, Told, column, job, table
from psycopg.conninfo import make_conninfo
from servers import Database, OwnServers

from dbwatch.clock import SystemClock
from dbwatch.migration.ddl import Action
from dbwatch.migration.events import (
    Applied,
    Cause,
    Committed,
    Connected,
    Direction,
    Finished,
    LogLine,
    Outcome,
    Planned,
    Retrying,
    StatementDone,
    StatementStarted,
    Stopping,
)
from dbwatch.migration.fingerprint import diff, take
from dbwatch.migration.request import Job
from dbwatch.migration.retry import without
from dbwatch.migration.runner import Patience, run
from dbwatch.migration.stopping import Ladder
from dbwatch.postgres.session import Connector

CLOCK = SystemClock()
PATIENCE = Patience()
UP, DOWN = Direction.UP, Direction.DOWN
USERS = "CREATE TABLE users (id int PRIMARY KEY, name text)"


async def go(
    db: Database, job: Job, told: Told | None = None, stop: asyncio.Event | None = None, patience: Patience = PATIENCE
) -> Outcome:
    """Runs *job* without jitter."""
    return await run(
        job,
        db.connector,
        clock=CLOCK,
        on_event=told or Told(),
        stop=stop or asyncio.Event(),
        patience=patience,
        jitter=lambda: 0.0,
    )


@pytest.fixture(params=["sync", "async"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> AlembicProject:
    return AlembicProject(tmp_path / "shop", asynchronous=request.param == "async")


async def test_an_upgrade_and_its_downgrade_bring_the_schema_back(db: Database, project: AlembicProject) -> None:
    await db.sql(USERS)
    project.revision("r1", *table("extra")).revision("r2", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    before = await take(db.connector, CLOCK)
    up = await go(db, job(project))
    assert up.ok
    assert (up.heads_before, up.heads_after) == (frozenset(), frozenset({"r2"}))
    assert up.committed == ("r1", "r2")
    assert "index public.users_phone" in (await take(db.connector, CLOCK)).items
    down = await go(db, job(project, DOWN, frozenset()))
    assert down.ok
    assert down.committed == ("r2", "r1")
    after = await take(db.connector, CLOCK)
    assert diff(before, without(after, ("public", "alembic_version"))) == ()


async def test_each_statement_is_told_with_its_revision_and_what_it_made(db: Database, project: AlembicProject) -> None:
    await db.sql(USERS)
    project.revision("r1", *column("a")).revision("r2", INDEX_CONCURRENTLY, NO_INDEX_CONCURRENTLY)
    told = Told()
    outcome = await go(db, job(project), told)
    [connected] = told.all(Connected)
    assert connected.backend_start.tzinfo is not None
    [planned] = told.all(Planned)
    assert planned.steps == ("r1", "r2")
    assert (planned.version_schema, planned.version_table) == ("public", "alembic_version")
    added = await told.statement("ADD COLUMN a")
    assert (added.revision, added.autocommit, added.concurrently) == ("r1", False, False)
    built = await told.statement("CREATE INDEX")
    assert (built.revision, built.autocommit, built.concurrently) == ("r2", True, True)
    done = await told.until(StatementDone, lambda done: done.n == built.n)
    [[oid]] = await db.sql("SELECT 'users_phone'::regclass::oid::int")
    assert [(one.kind, one.schema, one.name, one.parent, one.oid) for one in done.objects] == [
        ("index", "public", "users_phone", "users", oid)
    ]
    assert [ddl.sql for ddl in outcome.ddl if ddl.revision] == [
        "ALTER TABLE users ADD COLUMN a TEXT",
        "ALTER TABLE users ADD COLUMN phone TEXT",
        "CREATE INDEX CONCURRENTLY users_phone ON users (phone)",
    ]
    assert all(ddl.done for ddl in outcome.ddl)


async def test_names_that_the_server_chose_are_found_with_their_oids(db: Database, tmp_path: Path) -> None:
    await db.sql(USERS, "CREATE SCHEMA other", "CREATE TABLE other.users (id int)")
    project = AlembicProject(tmp_path / "shop")
    project.revision(
        "r1",
        """
        op.execute("CREATE INDEX ON users (name)")
        op.execute("ALTER TABLE users ADD UNIQUE (name), ADD CHECK (id > 0)")
        op.execute("SET LOCAL search_path = other")
        op.execute("CREATE TABLE found (a int)")
        op.execute("RESET search_path")
        """,
    )
    outcome = await go(db, job(project))
    made = {(one.kind, one.schema, one.name) for ddl in outcome.ddl for one in ddl.objects if ddl.revision and one.oid}
    assert made == {
        ("index", "public", "users_name_idx"),
        ("constraint", "public", "users_name_key"),
        ("constraint", "public", "users_id_check"),
        ("table", "other", "found"),
        ("column", "other", "a"),
    }


async def test_applied_is_told_before_committed_and_committed_only_when_others_see_it(
    db: Database, tmp_path: Path
) -> None:
    await db.sql(USERS)
    for tpm in (True, False):
        project = AlembicProject(tmp_path / f"shop-{tpm}", tpm=tpm)
        name = f"t{tpm}".lower()
        project.revision(f"{name}1", *table(f"{name}_a")).revision(f"{name}2", "op.execute('SELECT pg_sleep(0.01)')")
        project.revision(f"{name}3", "op.execute('SELECT 3')")
        await db.sql("DROP TABLE IF EXISTS alembic_version")
        told = Told()
        assert (await go(db, job(project), told)).ok
        kinds = [type(event) for event in told.events if isinstance(event, Applied | Committed | Finished)]
        assert kinds.count(Applied) == kinds.count(Committed) == 3
        first_committed, last_applied = kinds.index(Committed), len(kinds) - 1 - kinds[::-1].index(Applied)
        assert (first_committed < last_applied) == tpm
        assert [event.revision for event in told.all(Committed)] == [f"{name}1", f"{name}2", f"{name}3"]


async def test_an_env_that_does_not_commit_is_found_out(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("extra"))
    env = (project.folder / "migrations" / "env.py").read_text()
    project.env = env.replace(
        "    with context.begin_transaction():\n        context.run_migrations()\n\n",
        "    context.run_migrations()\n\n",
    )
    project.write_env()
    told = Told()
    outcome = await go(db, job(project), told)
    assert told.all(Finished)
    assert not told.all(Committed)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.UNSEEN
    assert "env.py did not commit" in outcome.failure.message


async def test_what_env_prints_or_logs_is_told_harmless_and_never_mistaken_for_an_answer(
    db: Database, tmp_path: Path
) -> None:
    project = AlembicProject(tmp_path / "shop", noisy=True)
    project.revision("r1", "print('from a revision')\nop.execute('SELECT 1')")
    told = Told()
    assert (await go(db, job(project), told)).ok
    lines = [event.text for event in told.all(LogLine)]
    assert "env.py says hello" in lines
    assert "a subprocess says hello too" in lines
    assert any("forged" in line for line in lines)
    assert not any("forged" in event.heads for event in told.all(Finished))
    assert "␛[2J[/red] hostile · text" in lines
    assert all(character.isprintable() for line in lines for character in line)


async def test_a_failure_brings_the_traceback_as_log_and_no_password_anywhere(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision(
        "r1",
        """
        from alembic import context
        url = context.config.get_main_option("sqlalchemy.url")
        print("the url is", url, flush=True)
        raise RuntimeError("with " + url)
        """,
    )
    db18.connector = Connector(make_conninfo(db18.dsn, password="se/cret&ive"))
    told = Told()
    outcome = await go(db18, job(project), told)
    lines = [event.text for event in told.all(LogLine)]
    assert "Traceback (most recent call last):" in lines
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.revision) == (Cause.CODE, "r1")
    assert "r1_.py line" in outcome.failure.message
    assert "***" in outcome.failure.message
    assert any("the url is" in line and "***" in line for line in lines)
    assert "cret" not in repr(told.events) + repr(outcome)


# Locks and retries.


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


# Stopping.


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
    assert await _lives(child)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    started = time.monotonic()
    async with asyncio.timeout(5):
        while await _lives(child):
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
    from dbwatch.migration.process import spawn
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


async def _lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    ps = await asyncio.create_subprocess_exec("ps", "-o", "stat=", "-p", str(pid), stdout=asyncio.subprocess.PIPE)
    said, _ = await ps.communicate()
    return bool(said.strip()) and not said.strip().startswith(b"Z")


async def _gone(db: Database, told: Told) -> None:
    """Waits until no backend of the migration is left."""
    pids = [event.pid for event in told.all(Connected)]
    async with asyncio.timeout(5):
        while await db.sql(f"SELECT pid FROM pg_stat_activity WHERE pid = ANY ('{{{','.join(map(str, pids))}}}')"):  # noqa: S608  # numbers
            pass


# The fence.


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


# Going nowhere.


async def test_the_wrong_database_is_refused_before_any_statement(db: Database, project: AlembicProject) -> None:
    project.url = f"postgresql+psycopg://postgres@127.0.0.1:{db.server.port}/postgres"
    project.write_env()
    project.revision("r1", *table("astray"))
    told = Told()
    outcome = await go(db, job(project), told)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.ELSEWHERE
    assert "another database (postgres)" in outcome.failure.message
    assert not told.all(StatementStarted)
    assert not told.all(Connected)
    assert outcome.attempts == 1


async def test_what_connects_to_no_postgresql_at_all_is_refused(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop", url="sqlite://").revision("r1", *table("astray"))
    outcome = await go(db18, job(project))
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.ELSEWHERE


async def test_a_copy_of_the_server_is_another_database(own_server: OwnServers, tmp_path: Path) -> None:
    ours, copy = await own_server(18), await own_server(18)
    database = await own_server.database(ours)
    project = AlembicProject(tmp_path / "shop", url=f"postgresql+psycopg://postgres@127.0.0.1:{copy.port}/postgres")
    project.revision("r1", *table("astray"))
    database.connector = Connector(ours.dsn)
    outcome = await go(database, job(project))
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.ELSEWHERE


async def test_nothing_to_do_is_done(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", *table("a"))
    assert (await go(db18, job(project))).ok
    again = await go(db18, job(project))
    assert again.ok
    assert again.committed == ()
    assert Action.CREATE not in [one.action for ddl in again.ddl for one in ddl.objects]


async def test_a_downgrade_goes_to_a_set_of_heads(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop")
    project.revision("a1", *table("a1")).revision("a2", *table("a2"))
    project.revision("b1", *table("b1"), after=())
    project.revision("b2", *table("b2"), after="b1")
    assert (await go(db18, job(project))).heads_after == frozenset({"a2", "b2"})
    back = await go(db18, job(project, DOWN, frozenset({"a1", "b1"})))
    assert back.ok
    assert back.heads_after == frozenset({"a1", "b1"})
    assert (await go(db18, job(project, UP, frozenset({"a1", "b2"})))).heads_after == frozenset({"a1", "b2"})


async def test_an_env_that_hangs_is_ended(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop", env="import time\nprint('zzz', flush=True)\ntime.sleep(600)")
    told = Told()
    patience = Patience(ready_s=1.5, ladder=Ladder(0.2, 1.0, 0.2))
    outcome = await go(db18, job(project), told, patience=patience)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.SILENT
    assert [event.rung for event in told.all(Stopping)] == ["cancel", "interrupt"]


async def test_a_child_that_dies_says_how(db18: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop").revision("r1", "import os\nos.kill(os.getpid(), 9)")
    outcome = await go(db18, job(project))
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.DIED
    assert "SIGKILL" in outcome.failure.message
