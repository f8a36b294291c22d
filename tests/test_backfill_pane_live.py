"""What the Backfill's pane asks of a window, and does in it, on a real server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from servers import Database, eventually
from windows import Shop, attended, begin_abort, driven, end_of_abort, small_shop, step, steps_before, until

from dbwatch.backfill import heap
from dbwatch.backfill.explain import explained
from dbwatch.backfill.heap import Heap
from dbwatch.backfill.plan import plan
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import DbwatchError
from dbwatch.journal import events as ev
from dbwatch.journal.fold import StepStatus
from dbwatch.postgres.session import Role
from dbwatch.window.conductor import Conductor
from dbwatch.window.filling import STOPPED
from dbwatch.window.intents import OverrideSignal, RetryRows, RunStep, SetBatchTime, StopOurs


@pytest.fixture
async def shop(db18: Database, tmp_path: Path) -> Shop:
    return await small_shop(db18, tmp_path)


def notes(conductor: Conductor) -> list[str]:
    return [e.fact.text for e in conductor.events if isinstance(e.fact, ev.StepNoted)]


async def test_the_plan_is_foretold_only_where_it_could_be_begun(shop: Shop) -> None:
    async with driven(shop) as conductor:
        with pytest.raises(DbwatchError, match=r"public\.users has no column 'phone'"):
            await conductor.plan_backfill("fill")
        with pytest.raises(DbwatchError, match="deploy is no backfill"):
            await conductor.plan_backfill("deploy")
        await steps_before(conductor, "fill")
        found = await conductor.plan_backfill("fill")
        said = dict(found.said)
        assert said["table"] == "public.users, about 3,000 rows"
        assert "SET changes what idx_users_phone holds: no update of it is HOT" in said["walk"]
        assert "batches" in said["costs"]
        assert found.batch[0].startswith("UPDATE ")
        assert any("users" in line for line in found.explained)
        assert any("legacy_phone_field IS NOT NULL" in line for line in found.explained)
        assert conductor.state.step("fill").attempt == 0
        assert await shop.db.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL") == [(0,)]
        async with attended(shop) as navigator:
            assert dict((await navigator.plan_backfill("fill")).said)["walk"] == said["walk"]


@pytest.mark.parametrize(("walk", "scan"), [(Walk.KEYSET, "t_pkey"), (Walk.PAGES, "Tid Range Scan on t")])
async def test_the_server_explains_a_batch_as_it_is_walked_and_waits_for_nobody(
    db18: Database, walk: Walk, scan: str
) -> None:
    await db18.sql(
        "CREATE TABLE t (id int PRIMARY KEY, old int, v int)",
        "INSERT INTO t SELECT g, g FROM generate_series(1, 20000) AS g",
        "ANALYZE t",
    )
    session = await db18.connector.open(Role.PROBE)
    try:
        found = await plan(session, Spec("t", "v = old", "v IS NULL", walk=walk))
        told = await explained(session, found)
        assert told[0].startswith("Update on t")
        assert any(scan in line for line in told)
        assert await db18.sql("SELECT count(v) FROM t") == [(0,)]
        assert found.unheeded == ()
        await db18.sql("CREATE INDEX ON t (v)")
        spec = Spec("t", "v = old", "v IS NULL", walk=walk, without=("lag",))
        assert (await plan(session, spec)).unheeded == ("lag", "hot")  # none can be HOT
        holder = await db18.foreign("dba", autocommit=False)
        await holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        assert await explained(session, found) == ("the table is locked: the server does not tell now",)
        await holder.execute("DROP TABLE t")
        await holder.commit()
        assert (await explained(session, found))[0].startswith("the server does not tell: ")
    finally:
        await session.close()


async def test_rows_that_were_set_aside_are_listed_mended_and_tried_again(shop: Shop) -> None:
    await shop.db.sql("UPDATE users SET legacy_phone_field = repeat('9', 25) WHERE id IN (7, 2901)")
    async with driven(shop) as conductor:
        assert (await conductor.rows_aside("fill")).backfill is None
        refused = await conductor.submit(RetryRows("fill"))
        assert not refused.taken
        assert "never began" in refused.text
        await steps_before(conductor, "fill")
        await step(conductor, "fill")
        assert conductor.work.backfill is not None
        assert conductor.work.backfill.quarantined == 2
        found = await conductor.rows_aside("fill")
        assert [(row.key, row.sqlstate) for row in found.rows] == [('["7"]', "22001"), ('["2901"]', "22001")]
        assert (found.total, found.tally) == (2, "22001: 2")

        async with attended(shop) as navigator:
            assert (await navigator.rows_aside("fill")).rows == found.rows
            assert not (await navigator.submit(RetryRows("fill"))).taken

        still = await conductor.submit(RetryRows("fill", '["7"]'))
        assert not still.taken
        assert "1 row tried again: 0 filled, 1 cannot still (22001: " in still.text
        await shop.db.sql("UPDATE users SET legacy_phone_field = '+1 555 7' WHERE id = 7")
        done = await conductor.submit(RetryRows("fill"))
        assert "2 rows tried again: 1 filled, 1 cannot still" in done.text
        assert await shop.db.sql("SELECT phone FROM users WHERE id = 7") == [("+1 555 7",)]
        assert notes(conductor)[-1] == f"{done.text}; asked by wei@a"
        assert (await conductor.rows_aside("fill")).total == 1
        assert conductor.work.backfill.quarantined == 1
        assert conductor.driver.busy == ""

        await shop.db.sql(  # more than anybody reads on a screen, and none of it harmless
            "INSERT INTO dbwatch.quarantine SELECT backfill_id, json_build_array(g::text)::text, '23514',"
            r" E'bad \x1b[2J [/] row' FROM dbwatch.quarantine, generate_series(10001, 19999) AS g"
        )
        found = await conductor.rows_aside("fill")
        assert (found.total, len(found.rows), found.tally) == (10_000, 1000, "23514: 9999, 22001: 1")
        assert found.rows[1].message == "bad ␛[2J [/] row"


async def test_signal_and_batch_time_change_while_it_runs_and_the_journal_says_who(
    db18: Database, tmp_path: Path
) -> None:
    shop = await small_shop(db18, tmp_path, users=40_000)
    text = shop.runbook.read_text()
    shop.runbook.write_text(text.replace('kind = "backfill"', 'kind = "backfill"\nbatch_time = "10ms"'))
    async with driven(shop) as conductor:
        early = [await conductor.submit(one) for one in (SetBatchTime(0.05), OverrideSignal("lag", 60))]
        assert [answer.text for answer in early] == ["no backfill is running"] * 2
        await steps_before(conductor, "fill")
        conductor.work.hand.pause("held")
        assert (await conductor.submit(RunStep("fill"))).taken
        await until(conductor, lambda c: c.work.backfilling)
        conductor.work.hand.pause("paused for the test")
        out = await conductor.submit(SetBatchTime(60))
        assert not out.taken
        assert "out of range" in out.text
        assert not (await conductor.submit(OverrideSignal("leg", 60))).taken
        assert (await conductor.submit(SetBatchTime(0.02))).taken
        assert (await conductor.submit(OverrideSignal("lag", 900))).taken
        conductor.work.hand.resume()
        await until(
            conductor,
            lambda c: (
                c.work.backfill is not None
                and c.work.backfill.base_target_ms == 20
                and [name for name, _ in c.work.backfill.overridden] == ["lag"]
            ),
        )
        assert (await conductor.submit(OverrideSignal("lag", 0))).taken
        await until(conductor, lambda c: c.work.backfill is not None and not c.work.backfill.overridden)
        said = notes(conductor)
        assert "a batch should take 20 ms, says wei@a" in said
        assert "wei@a overrides lag for 15 min" in said
        await asyncio.wait_for(conductor.work.settled(), 60)
        told = conductor.work.backfill
        assert told is not None
        assert "lag counts again" in notes(conductor)
        assert told.wal_rows == 39_200
        assert 20 < told.wal_bytes / told.wal_rows < 5000
        assert told.wal_per_row_foretold is not None
        assert told.heap is not None
        assert told.heap.began > 40_000 * 40
        assert told.walk_why == "SET changes what idx_users_phone holds: no update of it is HOT"
        assert conductor.state.step("fill").status is StepStatus.DONE


async def test_the_heap_is_measured_without_waiting_for_a_lock(any_db: Database) -> None:
    await any_db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT generate_series(1, 5000)")
    session = await any_db.connector.open(Role.MONITOR)
    try:
        small = await heap.measure(session, '"public"."t"')
        assert small is not None
        await any_db.sql("INSERT INTO t SELECT generate_series(5001, 20000)")
        holder = await any_db.foreign("dba", autocommit=False)
        await holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert await heap.measure(session, '"public"."t"') is None
        assert time.monotonic() - began < 1.0
        assert Heap.after(Heap(small, small), None) == Heap(small, small)
        await holder.rollback()
        now = await heap.measure(session, '"public"."t"')
        grown = Heap.after(Heap(small, small), now)
        assert grown is not None
        assert grown.grown > 15_000 * 24
        assert await heap.measure(session, '"public"."gone"') is None
        assert (await session.values("SHOW lock_timeout")) == [("500ms",)]
    finally:
        await session.close()


async def test_nothing_else_begins_while_rows_are_tried_again_and_the_try_can_be_stopped(shop: Shop) -> None:
    await shop.db.sql("UPDATE users SET legacy_phone_field = repeat('9', 25) WHERE id BETWEEN 7 AND 40")
    async with driven(shop) as conductor:
        await steps_before(conductor, "complete")
        await shop.db.sql("UPDATE users SET legacy_phone_field = 'x' WHERE id BETWEEN 7 AND 40")
        locker = await shop.db.foreign("app-1", autocommit=False)
        await locker.execute("SELECT FROM users WHERE id BETWEEN 8 AND 40 FOR UPDATE")  # half a second each
        trying = asyncio.create_task(conductor.submit(RetryRows("fill")))
        await until(conductor, lambda c: bool(c.driver.busy))
        assert conductor.feed().frame.window.busy == "another try of the rows that fill set aside"
        refused = await conductor.submit(RunStep("complete"))
        assert refused.text == "another try of the rows that fill set aside is running"
        assert not (await conductor.submit(RetryRows("fill"))).taken
        await eventually(lambda: shop.db.sql("SELECT 1 FROM users WHERE id = 7 AND phone = 'x'"))

        assert (await conductor.submit(StopOurs())).taken
        answer = await asyncio.wait_for(trying, 5)
        assert (answer.taken, answer.text) == (False, STOPPED)
        assert conductor.driver.busy == ""
        await locker.rollback()
        gone = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'dbwatch worker%')"
        await eventually(lambda: shop.db.sql(gone))
        [(filled,)] = await shop.db.sql("SELECT count(*) FROM users WHERE phone = 'x'")
        left = (await conductor.rows_aside("fill")).total
        assert filled + left == 34, "each row is filled and out, or as it was"
        assert left >= 32
        assert (await conductor.submit(RetryRows("fill"))).text == f"{left} rows tried again: {left} filled"


async def test_the_way_back_ends_a_try_that_is_under_way(shop: Shop) -> None:
    await shop.db.sql("UPDATE users SET legacy_phone_field = repeat('9', 25) WHERE id BETWEEN 7 AND 40")
    async with driven(shop) as conductor:
        await steps_before(conductor, "complete")
        await shop.db.sql("UPDATE users SET legacy_phone_field = 'x' WHERE id BETWEEN 7 AND 40")
        locker = await shop.db.foreign("app-1", autocommit=False)
        await locker.execute("SELECT FROM users WHERE id BETWEEN 7 AND 40 FOR UPDATE")  # half a second each
        trying = asyncio.create_task(conductor.submit(RetryRows("fill")))
        await until(conductor, lambda c: bool(c.driver.busy))
        await begin_abort(conductor)
        answer = await asyncio.wait_for(trying, 5)
        assert (answer.taken, answer.text) == (False, STOPPED)
        await locker.rollback()
        await end_of_abort(conductor)
        assert conductor.state.abort.equal
