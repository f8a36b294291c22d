"""A sql step whose connection or whose turn goes at the worst moment: never done twice, never told wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from proxy import FaultProxy
from servers import Database
from windows import PATIENCE_S, Shop, small_shop, step

from dbwatch.clock import SystemClock
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.journal.mirror import Mirror
from dbwatch.journal.store import Store
from dbwatch.postgres.session import Connector, Role
from dbwatch.window.conductor import Conductor
from dbwatch.window.driving import driving
from dbwatch.window.intents import RunStep
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
