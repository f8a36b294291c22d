"""Patient steps: they wait outside until nobody is in their way, knock briefly, and say what that cost others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from alembic_projects import USERS, AlembicProject, column
from servers import Database, OwnServers, eventually
from windows import PATIENCE_S, Shop, abort, driven, small_shop, until

from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepState, StepStatus
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role
from dbwatch.steps import behind
from dbwatch.steps.behind import Behind, Queue
from dbwatch.steps.patience import (
    KNOCK_MS,
    OLD_S,
    GiveUp,
    Knock,
    Need,
    Needs,
    Patience,
    Seen,
    Wait,
    looked,
    needs,
    note,
)
from dbwatch.window.conductor import Conductor
from dbwatch.window.intents import RunStep, StopOurs

Session = psycopg.AsyncConnection[Any]
SLACK_MS = 100
"""What a loaded machine adds to a lock_timeout until the lock is given back."""


# What is decided


def seen(pid: int = 1, **given: Any) -> Seen:
    facts = {"transaction": f"{pid}/1", "who": "app", "state": "idle in transaction", "age_s": 5.0}
    facts |= {"mode": "AccessShareLock", "relation": "users", "snapshot": False, "dump": False}
    return Seen(pid=pid, **{**facts, **given})


def patience(**given: Any) -> Patience:
    return Patience(**{"began": 0.0, "until": 60.0, **given})


@pytest.mark.parametrize(
    ("statement", "held"),
    [
        ("ALTER TABLE users ADD note text", {"AccessShareLock", "RowExclusiveLock", "ShareLock"}),
        ("CREATE INDEX CONCURRENTLY i ON users (name)", {"RowExclusiveLock", "ShareUpdateExclusiveLock"}),
        ("DROP INDEX CONCURRENTLY users", {"AccessShareLock"}),
        ("VACUUM FULL users", {"AccessShareLock"}),
        ("UPDATE users SET name = ''", {"ShareLock", "AccessExclusiveLock"}),
    ],
)
def test_a_step_waits_for_those_who_hold_what_conflicts_with_it(statement: str, held: set[str]) -> None:
    [need] = needs([statement]).relations
    assert need.name == "users"
    assert held <= need.held
    if statement.startswith("CREATE"):
        assert "AccessShareLock" not in need.held


def test_only_an_index_that_is_built_concurrently_waits_for_old_snapshots() -> None:
    assert needs(["CREATE INDEX CONCURRENTLY i ON users (name)"]).snapshots
    assert not needs(["DROP INDEX CONCURRENTLY i", "ALTER TABLE users ADD note text"]).snapshots


def test_what_the_statements_need_is_put_together() -> None:
    found = needs(["UPDATE shop.users SET name = ''", "CREATE TABLE t (id int)", "DO $$ BEGIN END $$"])
    assert found == Needs((Need("shop", "users", found.relations[0].held),), snapshots=False, schema=False)


def test_transactions_that_come_and_go_are_no_reason_to_wait() -> None:
    assert isinstance(looked(patience(), [seen(age_s=OLD_S / 2)], 1.0)[1], Knock)


def test_an_old_transaction_is_waited_for_and_named() -> None:
    _, move = looked(patience(), [seen(47110, who="reports", age_s=31.0)], 1.0)
    assert isinstance(move, Wait)
    assert move.whom == "47110 (reports, idle in transaction 31 s), ACCESS SHARE on users"


def test_a_transaction_whose_age_is_hidden_is_old_once_it_was_seen_for_long_enough() -> None:
    state, first = looked(patience(), [seen(age_s=None)], 1.0)
    _, later = looked(state, [seen(age_s=None)], 1.0 + OLD_S)
    _, another = looked(state, [seen(age_s=None, transaction="1/2")], 1.0 + OLD_S)
    assert [type(move) for move in (first, later, another)] == [Knock, Wait, Knock]


def test_a_dump_is_waited_for_however_young_it_is() -> None:
    _, move = looked(patience(), [seen(who="pg_dump", age_s=0.1, mode="", relation="", dump=True)], 1.0)
    assert isinstance(move, Wait)
    assert "a dump of this database" in move.whom


def test_the_patience_ends_and_says_for_whom_it_waited_and_what_that_cost() -> None:
    _, move = looked(patience(knocks=4, queued_s=0.18), [seen(who="reports")], 60.0)
    assert isinstance(move, GiveUp)
    assert move.why.startswith("its way was not clear within 60 s; it waits for 1 (reports")
    assert move.why.endswith("others queued at most 180 ms in 4 knocks")


def test_how_long_others_would_have_queued_is_told_while_it_waits_and_in_the_end() -> None:
    state, _ = looked(patience(), [seen()], 10.0)
    state, _ = looked(state, [seen()], 41.0)
    assert note(state, 41.0) == "others would have queued 0:31 by now; its patience lasts 0:19 more"
    state, move = looked(state, [], 42.0)
    assert isinstance(move, Knock)
    assert note(state, 42.0) == "its patience lasts 0:18 more"
    assert state.words == "waited outside for 32 s"


def test_a_wait_that_ended_between_two_looks_is_told_as_long_as_it_can_have_been() -> None:
    queue = behind.after(Queue(), [Behind("1/1", 0.10)], now=10.0)
    assert behind.after(queue, [], now=10.02).worst_s == pytest.approx(0.12)


def test_a_wait_whose_beginning_the_server_does_not_tell_counts_from_when_it_was_seen() -> None:
    queue = behind.after(Queue(), [Behind("1/1", None)], now=10.0)
    assert behind.after(queue, [Behind("1/1", None)], now=10.15).worst_s == pytest.approx(0.15)


# What is seen


async def look(db: Database, statements: list[str], user: str = "postgres") -> list[Seen]:
    wanted = needs(statements)
    flat = [(need.schema, need.name, held) for need in wanted.relations for held in sorted(need.held)]
    wish = {
        "schemas": [one[0] for one in flat],
        "names": [one[1] for one in flat],
        "helds": [one[2] for one in flat],
        "snapshots": wanted.snapshots,
        "schema": wanted.schema,
        "ours": "dbwatch % tag",
    }
    session = await Connector(db.dsn_as(user)).open(Role.CONTROL)
    try:
        await session.values(query("patience-queue", session.server_version), {"pid": session.pid})
        return await session.fetch(Seen, query("patience", session.server_version), wish)
    finally:
        await session.close()


async def holds(db: Database, name: str, *statements: str) -> Session:
    """A session idle in its transaction after *statements*."""
    session = await db.foreign(name, autocommit=False)
    for statement in statements:
        await session.execute(statement.encode())
    return session


async def test_whoever_holds_a_conflicting_lock_is_seen_on_every_major(any_db: Database) -> None:
    await any_db.sql("CREATE TABLE users (id int PRIMARY KEY)", "CREATE TABLE part (id int) PARTITION BY RANGE (id)")
    await any_db.sql("CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (2)")
    await holds(any_db, "reports", "SELECT 1 FROM users")
    await holds(any_db, "partition", "SELECT 1 FROM part_1")
    await holds(any_db, "snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM pg_class LIMIT 1")

    async def who(*statements: str) -> set[str]:
        return {one.who for one in await look(any_db, list(statements))}

    assert await who("ALTER TABLE users ADD note text") == {"reports"}
    assert await who("ALTER TABLE public.part ADD note text") == {"partition"}
    assert await who("DROP INDEX users_pkey") == {"reports"}
    assert await who("CREATE INDEX CONCURRENTLY i ON users (id)") == {"snapshot"}
    assert await who("UPDATE users SET id = 2") == set()
    assert all(one.age_s is not None for one in await look(any_db, ["ALTER TABLE users ADD note text"]))


async def test_a_reader_of_nearly_all_tables_is_a_dump_whatever_it_is_called(db18: Database) -> None:
    await db18.sql(*(f"CREATE TABLE t{n} (id int)" for n in range(25)), "CREATE TABLE users (id int)")
    await holds(db18, "nightly", *(f"LOCK TABLE t{n} IN ACCESS SHARE MODE" for n in range(25)))
    await holds(db18, "report", *(f"LOCK TABLE t{n} IN ACCESS SHARE MODE" for n in range(10)))
    assert [(one.who, one.dump) for one in await look(db18, ["ALTER TABLE users ADD note text"])] == [("nightly", True)]
    assert await look(db18, ["INSERT INTO users VALUES (1)"]) == []


async def test_a_role_that_may_not_look_sees_who_is_in_the_way_but_not_since_when(db18: Database) -> None:
    role = f"blind_{db18.name}"
    await db18.sql("CREATE TABLE users (id int)", f"CREATE ROLE {role} LOGIN")
    try:
        reports = await holds(db18, "reports", "SELECT 1 FROM users")
        [one] = await look(db18, ["ALTER TABLE users ADD note text"], role)
        assert (one.pid, one.mode, one.age_s) == (reports.info.backend_pid, "AccessShareLock", None)
        assert (one.who, one.snapshot, one.dump) == ("reports", False, False)
    finally:
        await db18.sql(f"DROP ROLE {role}")


async def test_a_prepared_transaction_is_in_the_way_under_its_own_name(own_server: OwnServers) -> None:
    server = await own_server(18, settings={"max_prepared_transactions": "2"})
    db = await own_server.database(server)
    await db.sql("CREATE TABLE users (id int)")
    session = await holds(db, "transfer", "LOCK TABLE users IN SHARE MODE")
    await session.execute("PREPARE TRANSACTION 'transfer 7'")
    [one] = await look(db, ["UPDATE users SET id = 1"])
    assert (one.pid, one.who, one.mode) == (0, "prepared transaction transfer 7", "ShareLock")


# What is done

RUNBOOK = """\
title = "patience"
alembic = "alembic.ini"

[target]
dsn = "${SHOP_DSN}"

[[phase]]
name = "all"

[[phase.step]]
id = "note"
kind = "sql"
sql = "ALTER TABLE users ADD COLUMN note text"
undo = "ALTER TABLE users DROP COLUMN IF EXISTS note"
patient = "60s"

[[phase.step]]
id = "city"
kind = "sql"
sql = "CREATE INDEX CONCURRENTLY users_city ON users (city)"
undo = "DROP INDEX IF EXISTS users_city"
patient = "60s"

[[phase.step]]
id = "add"
kind = "migrate"
to = "3f1c"
patient = "60s"
"""


async def patient_shop(db: Database, folder: Path, **replaced: str) -> Shop:
    shop = await small_shop(db, folder, users=10)
    text = RUNBOOK
    for old, new in replaced.items():
        text = text.replace(f'{old} = "60s"', f'{old} = "{new}"')
    shop.runbook.write_text(text)
    return shop


@pytest.fixture
async def shop18(db18: Database, tmp_path: Path) -> Shop:
    return await patient_shop(db18, tmp_path)


async def old(db: Database, name: str, *statements: str) -> Session:
    """A session in a transaction that is old enough to be waited for."""
    return await holds(db, name, *statements, f"SELECT pg_sleep({OLD_S})")


async def begun(conductor: Conductor, step_id: str) -> None:
    answer = await conductor.submit(RunStep(step_id))
    assert answer.taken, answer.text


async def waits_for(conductor: Conductor, whom: str) -> None:
    await until(conductor, lambda c: c.work.migration is not None and whom in c.work.migration.waits_for)


async def ended(conductor: Conductor, step_id: str) -> StepState:
    await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
    return conductor.state.step(step_id)


async def write(db: Database, within_ms: int) -> None:
    """A write of the application's, on a connection of its own, that fails where it has to queue for longer."""
    session = await db.foreign("writer")
    await session.execute(f"SET lock_timeout = {within_ms}".encode())
    await session.execute("UPDATE users SET name = name WHERE id = 1")


async def done(conductor: Conductor, step_id: str) -> None:
    """Runs a step with nobody in its way."""
    await begun(conductor, step_id)
    assert (await ended(conductor, step_id)).status is StepStatus.DONE, conductor.state.step(step_id).text


@asynccontextmanager
async def busy(db: Database, read: LiteralString = "SELECT 1 FROM users") -> AsyncIterator[None]:
    """A table that is never free, though nobody holds it for long: two sessions take turns, and overlap."""
    one, other = await db.foreign("one", autocommit=False), await db.foreign("other", autocommit=False)

    async def take_turns() -> None:
        await other.execute(read)
        while True:
            for now, last in ((one, other), (other, one)):
                await now.execute(read)
                await last.rollback()
                await now.execute("SELECT pg_sleep(0.5)")

    turns = asyncio.create_task(take_turns())
    try:
        yield
    finally:
        turns.cancel()
        await asyncio.wait({turns})
        await one.close()
        await other.close()


async def knocks(db: Database, role: str) -> None:
    """Waits until a knock of ours waits for its lock."""
    text = (
        f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "  # noqa: S608
        f"AND application_name LIKE 'dbwatch {role}%'"
    )
    onlooker = await db.foreign("onlooker")

    async def waits() -> bool:
        return bool(await (await onlooker.execute(text.encode())).fetchall())

    await eventually(waits)


@pytest.mark.parametrize("step_id", ["note", "add"])
async def test_a_step_waits_outside_until_its_way_is_clear_and_goes_at_once(shop18: Shop, step_id: str) -> None:
    async with driven(shop18) as conductor:
        if step_id == "add":
            await done(conductor, "note")
            await done(conductor, "city")
        reports = await old(shop18.db, "reports", "SELECT 1 FROM users")
        await begun(conductor, step_id)
        await waits_for(conductor, "reports, idle in transaction")
        await write(shop18.db, KNOCK_MS // 2)
        assert conductor.work.migration is not None
        assert conductor.work.migration.knocks == 0
        assert conductor.work.migration.note.startswith("others would have queued 0:0")
        await reports.rollback()
        state = await ended(conductor, step_id)
        assert state.status is StepStatus.DONE, state.text
        assert "waited outside for" in state.text
        queued = re.search(r"(nobody was seen to queue|others queued at most (\d+) ms) in 1 knock$", state.text)
        assert queued is not None, state.text  # an autovacuum may come just then, and is held up as briefly as anybody
        assert int(queued[2] or 0) <= KNOCK_MS + SLACK_MS
        notes = [e.fact.text for e in conductor.events if isinstance(e.fact, ev.StepNoted) and e.fact.step == step_id]
        assert len([text for text in notes if "waits for" in text]) == 1


async def test_a_writer_that_comes_meanwhile_is_held_up_no_longer_than_the_knock(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        async with busy(shop18.db):
            await begun(conductor, "note")
            await knocks(shop18.db, "worker")
            await write(shop18.db, KNOCK_MS + SLACK_MS)
        state = await ended(conductor, "note")
        assert state.status is StepStatus.DONE, state.text
        assert "others queued at most" in state.text


async def test_a_vacuum_full_holds_a_writer_up_no_longer_than_the_knock_either(shop18: Shop) -> None:
    shop18.runbook.write_text(RUNBOOK.replace("ALTER TABLE users ADD COLUMN note text", "VACUUM FULL users"))
    async with driven(shop18) as conductor:
        async with busy(shop18.db):
            await begun(conductor, "note")
            await knocks(shop18.db, "worker")
            await write(shop18.db, KNOCK_MS + SLACK_MS)
            await until(conductor, lambda c: c.work.migration is not None and c.work.migration.knocks == 2)
        state = await ended(conductor, "note")
        assert state.status is StepStatus.DONE, state.text


async def test_a_migration_that_knocked_in_vain_is_taken_back_whole(shop18: Shop) -> None:
    before = await shop18.dump()
    async with driven(shop18) as conductor:
        await done(conductor, "note")
        await done(conductor, "city")
        async with busy(shop18.db):
            await begun(conductor, "add")
            await knocks(shop18.db, "migrate")
            await write(shop18.db, KNOCK_MS + SLACK_MS)
        state = await ended(conductor, "add")
        assert state.status is StepStatus.DONE, state.text
        assert "others queued at most" in state.text
        ours = [seen.n for seen in conductor.state.ddl if seen.step == "add"]
        assert len(ours) > len([n for n in ours if n < 1000]) > 0
        await abort(conductor)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop18.dump() == before


async def test_a_chain_that_was_knocked_back_half_way_goes_on_from_there(db18: Database, tmp_path: Path) -> None:
    await db18.sql(USERS, "CREATE TABLE products (id int)")
    project = AlembicProject(tmp_path / "shop", tpm=True)
    project.revision("r1", *column("phone")).revision("r2", *column("price", of="products"))
    runbook = project.folder / "runbook.toml"
    runbook.write_text(
        'title = "half-way"\nalembic = "alembic.ini"\n[target]\ndsn = "${SHOP_DSN}"\n[[phase]]\nname = "all"\n'
        '[[phase.step]]\nid = "up"\nkind = "migrate"\nto = "r2"\npatient = "60s"\n'
    )
    shop = Shop(db18, tmp_path, runbook)
    before = await shop.dump()
    async with driven(shop) as conductor:
        async with busy(db18, "SELECT 1 FROM products"):
            await begun(conductor, "up")
            await until(conductor, lambda c: c.work.migration is not None and c.work.migration.knocks == 2)
        state = await ended(conductor, "up")
        assert state.status is StepStatus.DONE, state.text
        made = {(o["kind"], o["name"]) for one in conductor.state.ddl for o in one.objects}
        assert {("column", "phone"), ("column", "price")} <= made
        await abort(conductor)
        assert conductor.state.abort is not None
        assert conductor.state.abort.equal, conductor.state.abort.differences
    assert await shop.dump() == before


async def test_ddl_is_not_begun_while_a_dump_runs(shop18: Shop) -> None:
    dump = await holds(shop18.db, "pg_dump", "LOCK TABLE products IN ACCESS SHARE MODE")
    async with driven(shop18) as conductor:
        await begun(conductor, "note")
        await waits_for(conductor, "a dump of this database")
        await dump.rollback()
        assert (await ended(conductor, "note")).status is StepStatus.DONE


async def test_an_index_is_not_begun_while_an_old_snapshot_would_hold_it_up(shop18: Shop) -> None:
    async with driven(shop18) as conductor:
        await done(conductor, "note")
        frozen = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        reports = await old(shop18.db, "reports", frozen, "SELECT 1 FROM products")
        await begun(conductor, "city")
        await waits_for(conductor, "an old snapshot")
        assert not await shop18.db.sql("SELECT 1 FROM pg_class WHERE relname = 'users_city'")
        await reports.rollback()
        assert (await ended(conductor, "city")).status is StepStatus.DONE
    assert await shop18.db.sql("SELECT 1 FROM pg_index WHERE indexrelid = 'users_city'::regclass AND indisvalid")


async def test_the_patience_ends_and_the_step_can_be_run_again(db18: Database, tmp_path: Path) -> None:
    shop = await patient_shop(db18, tmp_path, patient="1s")
    reports = await old(db18, "reports", "SELECT 1 FROM users")
    async with driven(shop) as conductor:
        await begun(conductor, "note")
        state = await ended(conductor, "note")
        assert (state.status, state.again) == (StepStatus.FAILED, True)
        assert "not clear within 1.0 s; it waits for" in state.text
        assert "reports" in state.text
        await reports.rollback()
        await done(conductor, "note")


async def test_a_schema_that_may_not_be_read_is_no_lock_to_wait_for(db18: Database, tmp_path: Path) -> None:
    shop = await patient_shop(db18, tmp_path, patient="2s")
    role = f"blind_{db18.name}"
    await db18.sql(
        f"CREATE ROLE {role} LOGIN IN ROLE pg_monitor",
        f"GRANT ALL ON DATABASE {db18.name} TO {role}",
        f"GRANT ALL ON SCHEMA public TO {role}",
        f"ALTER TABLE alembic_version OWNER TO {role}",
        f"ALTER TABLE users OWNER TO {role}",
    )
    try:
        async with driven(replace(shop, db=replace(db18, dsn=db18.dsn_as(role)))) as conductor:
            await done(conductor, "note")
            await done(conductor, "city")
            await db18.sql("REVOKE SELECT ON pg_catalog.pg_trigger FROM public")
            await begun(conductor, "add")
            state = await ended(conductor, "add")
            assert (state.status, state.again) == (StepStatus.FAILED, True)
            assert "permission denied for table pg_trigger" in state.text
            assert "not clear" not in state.text
    finally:
        await db18.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_x_ends_the_wait_at_once(shop18: Shop) -> None:
    await old(shop18.db, "reports", "SELECT 1 FROM users")
    async with driven(shop18) as conductor:
        await begun(conductor, "note")
        await waits_for(conductor, "reports")
        pressed = time.monotonic()
        assert (await conductor.submit(StopOurs())).taken
        state = await ended(conductor, "note")
        assert time.monotonic() - pressed < 5
        assert (state.status, state.again) == (StepStatus.FAILED, True)
        assert "stopped" in state.text
