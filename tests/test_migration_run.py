"""Running a migration: what is told, what is committed, what goes wrong before anything runs. Real servers."""

from __future__ import annotations

import asyncio
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
    Planned,
    StatementDone,
    StatementStarted,
    Stopping,
)
from dbwatch.migration.fingerprint import diff, take
from dbwatch.migration.retry import without
from dbwatch.migration.runner import Patience
from dbwatch.migration.stopping import Ladder
from dbwatch.postgres.session import Connector

CLOCK = SystemClock()
UP, DOWN = Direction.UP, Direction.DOWN


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


@pytest.mark.parametrize("alone", [True, False], ids=["by itself", "in its transaction"])
async def test_an_index_that_is_there_and_invalid_is_not_taken_for_made(
    db: Database, project: AlembicProject, alone: bool
) -> None:
    await db.sql(
        USERS,
        "CREATE INDEX users_name ON users (name)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_name'::regclass",
    )
    by_itself = """
        with op.get_context().autocommit_block():
            op.create_index('users_name', 'users', ['name'], postgresql_concurrently=True, if_not_exists=True)
    """
    with_all = "op.create_index('users_name', 'users', ['name'], if_not_exists=True)"
    outcome = await go(db, job(project.revision("r1", by_itself if alone else with_all)))
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.DATABASE
    assert "INVALID, and left as it was: index public.users_name" in outcome.failure.message
    assert (outcome.attempts, outcome.heads_after) == (1, frozenset())


async def test_applied_is_told_before_committed_and_committed_only_when_others_see_it(
    db: Database, tmp_path: Path
) -> None:
    await db.sql(USERS)
    for tpm in (True, False):
        project = AlembicProject(tmp_path / f"shop-{tpm}", tpm=tpm)
        name = f"t{tpm}".lower()
        project.revision(f"{name}1", *table(f"{name}_a")).revision(f"{name}2", "op.execute('SELECT pg_sleep(0.01)')")
        project.revision(f"{name}3", "op.execute('SELECT pg_advisory_xact_lock(77)')")
        await db.sql("DROP TABLE IF EXISTS alembic_version")
        gate = await db.foreign(autocommit=False)
        await gate.execute("SELECT pg_advisory_xact_lock(77)")
        told = Told()
        running = asyncio.create_task(go(db, job(project, lock_timeout_ms=0), told))
        await told.until(Committed) if tpm else await told.statement("advisory")
        await gate.rollback()
        assert (await running).ok
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


@pytest.mark.parametrize("tpm", [False, True], ids=["one transaction", "a transaction per migration"])
async def test_a_downgrade_that_raises_on_the_way_stops_where_its_transactions_end(
    db: Database, tmp_path: Path, tpm: bool
) -> None:
    project = AlembicProject(tmp_path / "shop", tpm=tpm).revision("r1", *table("a"))
    project.revision("r2", table("b")[0], "raise NotImplementedError('no way back')").revision("r3", *table("c"))
    assert (await go(db, job(project))).ok
    back = await go(db, job(project, DOWN, frozenset({"r1"})))
    assert back.failure is not None
    assert (back.failure.cause, back.failure.revision) == (Cause.CODE, "r2")
    assert "no way back" in back.failure.message
    assert back.heads_after == frozenset({"r2" if tpm else "r3"})
    assert back.committed == (("r3",) if tpm else ())


async def test_a_downgrade_without_a_function_is_refused_before_anything_runs(db: Database, tmp_path: Path) -> None:
    project = AlembicProject(tmp_path / "shop", tpm=True).revision("r1", *table("a"))
    project.revision("r2", table("b")[0], None).revision("r3", *table("c"))
    assert (await go(db, job(project))).ok
    back = await go(db, job(project, DOWN, frozenset({"r1"})))
    assert back.failure is not None
    assert back.failure.cause is Cause.CONFIG
    assert back.failure.message == "revision r2 has no downgrade()"
    assert await db.sql("SELECT version_num FROM alembic_version") == [("r3",)]
