"""A sql step whose connection or whose turn goes at the worst moment: never done twice, never told wrongly."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from proxy import FaultProxy
from servers import Database, eventually
from windows import PATIENCE_S, Shop, driven, small_shop, step

from dbwatch.clock import SystemClock
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.journal.mirror import Mirror
from dbwatch.journal.store import Store
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import LIMITS, Connection, Connector, Limits, Role
from dbwatch.steps.statement import TransactionEnded, run_together, unhurried
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import RunStep, StopOurs
from dbwatch.window.opening import enter

SAME = """\
title = "one statement"

[[phase]]
name = "all"

[[phase.step]]
id = "insert"
kind = "sql"
sql = "INSERT INTO users (email, name, city) VALUES ('new@example.com', 'n', 'c')"
undo = "DELETE FROM users WHERE email = 'new@example.com'"

[[phase.step]]
id = "index"
kind = "sql"
sql = "CREATE INDEX CONCURRENTLY users_city ON users (city)"

[target]
dsn = "${SHOP_DSN}"
"""


@pytest.fixture
async def shop18(db18: Database, tmp_path: Path) -> Shop:
    shop = await small_shop(db18, tmp_path, users=10)
    shop.runbook.write_text(SAME)
    return shop


@asynccontextmanager
async def by_way_of(shop: Shop, proxy: FaultProxy, role: Role) -> AsyncIterator[Conductor]:
    """A window whose sessions in one role go through *proxy*, and all others straight."""
    ground = await enter(shop.book(), SystemClock(), shop.wish(), lambda _: None)
    connector = Connector(shop.db.dsn, roles={role: proxy.dsn})
    store = ground.store
    if role is Role.JOURNAL:
        await store.close()
        store = Store(connector, ground.clock, "wei@a", store.window, Mirror(shop.folder, store.window))
        await store.load()
        await store.take("by another way")
    ground = replace(ground, store=store, base=connector)
    async with driving(ground) as conductor:
        await asyncio.wait_for(conductor.recovered.wait(), PATIENCE_S)
        yield conductor


async def inserted(shop: Shop) -> int:
    [(count,)] = await shop.db.sql("SELECT count(*) FROM users WHERE email = 'new@example.com'")
    return int(count)


async def ended(conductor: Conductor, step_id: str) -> StepStatus:
    answer = await conductor.submit(RunStep(step_id))
    assert answer.taken, answer.text
    await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
    return conductor.state.step(step_id).status


async def test_a_step_whose_commit_took_effect_unheard_is_done_and_was_done_once(
    shop18: Shop, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(shop18.db.dsn)
    async with by_way_of(shop18, proxy, Role.WORKER) as conductor:
        proxy.drop_answer_to(b"COMMIT")
        assert await ended(conductor, "insert") is StepStatus.DONE
    assert await inserted(shop18) == 1


async def test_a_step_whose_transaction_was_cut_off_is_known_not_to_have_taken_effect(
    shop18: Shop, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(shop18.db.dsn)
    async with by_way_of(shop18, proxy, Role.WORKER) as conductor:
        proxy.drop_answer_to(b"INSERT INTO users")
        assert await ended(conductor, "insert") is StepStatus.FAILED
        assert conductor.state.step("insert").again
        assert await inserted(shop18) == 0
        await step(conductor, "insert")
    assert await inserted(shop18) == 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_a_statement_that_ends_its_own_transaction_is_not_written_down_as_done(db18: Database, end: str) -> None:
    written: list[str] = []

    async def write(_: Connection, result: str) -> None:
        written.append(result)

    control = Kept(db18.connector, Role.CONTROL)
    session = await db18.connector.open(Role.WORKER)
    try:
        with pytest.raises(TransactionEnded):
            await run_together(
                session,
                f"CREATE TABLE made (id int); {end}",
                write,
                control=control,
                stop=asyncio.Event(),
                limits=LIMITS[Role.WORKER],
            )
    finally:
        await session.close()
        await control.close()
    assert not written


async def test_a_statement_that_commits_by_itself_and_was_cut_off_is_unknown(
    shop18: Shop, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(shop18.db.dsn)
    async with by_way_of(shop18, proxy, Role.WORKER) as conductor:
        await step(conductor, "insert")
        proxy.drop_answer_to(b"CREATE INDEX")
        assert await ended(conductor, "index") is StepStatus.UNKNOWN


async def test_a_statement_that_commits_by_itself_is_not_sent_once_somebody_else_drives(
    shop18: Shop, proxy_to: FaultProxy.Factory
) -> None:
    proxy = await proxy_to(shop18.db.dsn)
    async with by_way_of(shop18, proxy, Role.WORKER) as conductor:
        await step(conductor, "insert")
        proxy.stall_at(b"FOR UPDATE")
        assert (await conductor.submit(RunStep("index"))).taken
        await asyncio.wait_for(proxy.stalled.wait(), PATIENCE_S)
        await shop18.db.sql("UPDATE dbwatch.window SET epoch = epoch + 1")
        proxy.resume()
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
    assert not await shop18.db.sql("SELECT 1 FROM pg_class WHERE relname = 'users_city'")


@pytest.mark.parametrize(
    ("statement", "lock_ms"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", 0),
        ("REINDEX TABLE CONCURRENTLY t", 0),
        ("VACUUM FULL t", 200),
        ("VACUUM t", 200),
        ("CREATE DATABASE d", 200),
    ],
)
def test_only_what_is_concurrently_waits_for_a_lock_as_long_as_it_takes(statement: str, lock_ms: int) -> None:
    assert unhurried(statement, Limits(200, 60_000, 5_000)) == Limits(lock_ms, 0, 5_000)


async def test_a_vacuum_full_that_finds_its_table_in_use_gives_up_and_can_be_run_again(shop18: Shop) -> None:
    text = SAME.replace("CREATE INDEX CONCURRENTLY users_city ON users (city)", "VACUUM FULL users")
    shop18.runbook.write_text(text.replace("[target]", '[target]\nlock_timeout = "200ms"'))
    async with driven(shop18) as conductor:
        await step(conductor, "insert")
        reports = await shop18.db.foreign("reports", autocommit=False)
        await reports.execute("SELECT 1 FROM users LIMIT 1")
        assert await ended(conductor, "index") is StepStatus.FAILED
        assert conductor.state.step("index").again
        assert "lock timeout" in conductor.state.step("index").text
        await reports.rollback()
        await step(conductor, "index")


@pytest.mark.parametrize("how", ["CONCURRENTLY IF NOT EXISTS", "IF NOT EXISTS"])
async def test_an_index_that_is_there_and_invalid_is_not_taken_for_made(shop18: Shop, how: str) -> None:
    shop18.runbook.write_text(SAME.replace("INDEX CONCURRENTLY", f"INDEX {how}"))
    await shop18.db.sql(
        "CREATE INDEX users_city ON users (city)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_city'::regclass",
    )
    async with driven(shop18) as conductor:
        await step(conductor, "insert")
        assert await ended(conductor, "index") is StepStatus.FAILED
        assert conductor.state.step("index").again
        assert "INVALID, and left as it was: index public.users_city" in conductor.state.step("index").text
        await shop18.db.sql("DROP INDEX users_city")
        await step(conductor, "index")


@pytest.mark.parametrize("what", ["TABLE CONCURRENTLY users", "SCHEMA CONCURRENTLY public"])
async def test_what_a_reindex_leaves_that_was_cut_short_is_named(shop18: Shop, what: str) -> None:
    shop18.runbook.write_text(SAME.replace("CREATE INDEX CONCURRENTLY users_city ON users (city)", f"REINDEX {what}"))
    await shop18.db.sql(
        "CREATE TABLE other (id int)",
        "CREATE INDEX older ON other (id)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'older'::regclass",
    )
    reports = await shop18.db.foreign("reports", autocommit=False)
    await reports.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    async with driven(shop18) as conductor:
        await step(conductor, "insert")
        await reports.execute("SELECT 1 FROM users LIMIT 1")
        assert (await conductor.submit(RunStep("index"))).taken

        async def waits() -> bool:
            text = "SELECT 1 FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"
            return bool(await shop18.db.sql(text))

        await eventually(waits)
        assert (await conductor.submit(StopOurs())).taken
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        state = conductor.state.step("index")
        assert (state.status, state.again) == (StepStatus.FAILED, False)
        assert re.search(r"left behind: .*\bindex public\.\w+_ccnew", state.text), state.text
        assert "older" not in state.text


async def test_an_index_that_is_invalid_until_its_partitions_have_theirs_is_made(shop18: Shop) -> None:
    made = "CREATE INDEX part_id ON ONLY part (id)"
    shop18.runbook.write_text(SAME.replace("CREATE INDEX CONCURRENTLY users_city ON users (city)", made))
    await shop18.db.sql(
        "CREATE TABLE part (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (2)",
    )
    async with driven(shop18) as conductor:
        await step(conductor, "insert")
        await step(conductor, "index")


@pytest.mark.parametrize("committed", [True, False])
async def test_a_step_whose_start_was_answered_by_nobody_is_not_begun_and_not_left_running(
    shop18: Shop, proxy_to: FaultProxy.Factory, committed: bool
) -> None:
    proxy = await proxy_to(shop18.db.dsn)
    async with by_way_of(shop18, proxy, Role.JOURNAL) as conductor:
        proxy.drop_answer_to(b"COMMIT" if committed else b"step.started")
        proxy.refusing = True
        assert not (await conductor.submit(RunStep("insert"))).taken
        proxy.refusing = False
        await asyncio.wait_for(conductor.work.settled(), PATIENCE_S)
        known = conductor.state.step("insert")
        assert (known.status, known.attempt) == ((StepStatus.FAILED, 1) if committed else (StepStatus.PENDING, 0))
        assert await inserted(shop18) == 0
        await step(conductor, "insert")
        assert sum(isinstance(e.fact, ev.StepDone) for e in conductor.events) == 1
    assert await inserted(shop18) == 1
