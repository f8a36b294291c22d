"""Several workers fill side by side: each row once, whatever becomes of one of them or of all."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import QUICK, WORKER_WAITS, Ledger, run_elsewhere, wait_for
from proxy import FaultProxy
from servers import Database, eventually, turns

from dbwatch.backfill import row, walker
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.progress import State
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import Fenced, Refused, UsageError
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector

SIDE = Spec(table="t", set="v = v + 1", where="v = 0", workers=4, batch_time_ms=10)
ROWS = "SELECT generate_series(2, 40000, 2)"
SIDE_BY_SIDE = pytest.mark.parametrize("side", [SIDE, replace(SIDE, walk=Walk.STRIPES)], ids=["plainly", "in stripes"])
COUNTED = "SELECT rows_done, batches FROM dbwatch.backfill"


async def finished(ledger: Ledger, spec: Spec = SIDE, rows: int = 20_000) -> None:
    """It runs to its end now; each row was set once, and is counted once."""
    result = await ledger.run(spec)
    assert (result.outcome, result.rows, result.pending) == (State.DONE, rows, 0)
    assert await ledger.violations() == []
    assert await ledger.database.sql(COUNTED) == [(result.rows, result.batches)]


@pytest.mark.parametrize(("any_db", "walk"), turns(Walk.AUTO, Walk.KEYSET, Walk.STRIPES), indirect=["any_db"])
async def test_each_row_is_filled_once_by_several_at_a_time(any_db: Database, walk: Walk) -> None:
    ledger = await Ledger.make(any_db, ROWS)
    backfill, scene = await ledger.backfill(replace(SIDE, walk=walk))
    result = await backfill.run()
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert await ledger.violations() == []
    assert await any_db.sql(COUNTED) == [(20_000, result.batches)]
    assert max(len({*p.crew, p.worker}) for p in scene.told) == 5
    fractions = [p.fraction for p in scene.told]
    assert fractions == sorted(fractions)


async def test_they_fill_at_the_same_time(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    fill_beside = BatchSession.fill_beside

    async def watched(self: BatchSession, *args: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await fill_beside(self, *args)
        finally:
            under_way -= 1

    monkeypatch.setattr(BatchSession, "fill_beside", watched)
    await finished(await Ledger.make(db18, ROWS))
    assert most > 1


@pytest.mark.parametrize("others", [False, True], ids=["alone", "among others"])
async def test_where_nobody_said_how_many_a_second_one_helps_while_nobody_else_works(
    db18: Database, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr(walker, "HELP_AFTER_S", 0.0)
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 120000)")
    report = await db18.foreign("report")
    reading = asyncio.create_task(report.execute("SELECT pg_sleep(60)")) if others else None
    backfill, scene = await ledger.backfill(replace(SIDE, workers=None), thresholds=QUICK)
    result = await backfill.run()
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 120_000, 0)
    assert await ledger.violations() == []
    assert max(len(p.crew) for p in scene.told) == (0 if others else 2)
    assert not any(p.crew for p in scene.told if p.checking)
    if reading is not None:
        report.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await reading


async def test_none_helps_in_mode_once_at_a_set_rate_or_where_stripes_cannot_pay(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 120000)")
    auto = replace(SIDE, workers=None)
    plans = [await ledger.plan(spec) for spec in (auto, replace(auto, mode="once"), replace(auto, rows_per_second=9))]
    assert [plan.hands for plan in plans] == [2, 1, 1]
    await db18.sql("CREATE INDEX ON t (v)")
    assert (await ledger.plan(auto)).hands == 1


async def test_several_in_stripes_leave_most_rows_on_their_page(db18: Database) -> None:
    """They do not keep each other's pages from being pruned."""
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 120000)")
    await db18.sql("ALTER TABLE t SET (autovacuum_enabled = false)")
    side = replace(SIDE, workers=2, batch_time_ms=50)
    assert (await ledger.plan(side)).walk.startswith("by pages by 2 workers side by side, in stripes")
    await finished(ledger, replace(side, walk=Walk.STRIPES), 120_000)

    async def counted() -> bool:
        [(updated, hot)] = await db18.sql(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 't'"
        )
        return bool(updated >= 120_000 and hot > 0.4 * updated)

    await eventually(counted)


async def test_partitions_and_what_is_kept_for_the_way_back(db18: Database) -> None:
    await db18.sql(
        "CREATE TABLE t (id int, v int NOT NULL DEFAULT 0, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES FROM ({n * 5000}) TO ({n * 5000 + 5000})" for n in range(4)),
        "INSERT INTO t SELECT generate_series(0, 19999)",
        "ANALYZE t",
    )
    await schema.ensure(db18.connector)
    result = await Ledger(db18).run(replace(SIDE, undo=True))
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 20_000, 0)
    kept = await db18.sql(f"SELECT count(*), count(*) FILTER (WHERE old_1 <> 0 OR new_1 <> 1) FROM {result.images}")  # noqa: S608  # ours
    assert kept == [(20_000, 0)]


@SIDE_BY_SIDE
async def test_killed_and_started_again_it_goes_on(db: Database, side: Spec) -> None:
    ledger = await Ledger.make(db, ROWS)
    for where in (8_000, 30_000):
        holder = await db.foreign("the row it is killed at", autocommit=False)
        await holder.execute(f"SELECT FROM t WHERE id >= {where} AND v = 0 ORDER BY id LIMIT 1 FOR UPDATE".encode())
        process = await run_elsewhere(db.dsn, side)
        await wait_for(db, WORKER_WAITS)
        process.kill()
        await process.wait()
        await holder.rollback()
    await finished(ledger, side)


@SIDE_BY_SIDE
async def test_a_worker_that_is_ended_holds_up_nobody(db: Database, side: Spec) -> None:
    ledger = await Ledger.make(db, ROWS)
    backfill, scene = await ledger.backfill(replace(side, rows_per_second=8_000))
    running = asyncio.create_task(backfill.run())
    for done in (0, 6_000):
        seen = await scene.until(lambda p, done=done: len(p.crew) > 1 and p.rows_done > done)
        await db.sql(f"SELECT pg_terminate_backend({seen.crew[0].pid})")
    result = await running
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert await ledger.violations() == []
    assert await db.sql(COUNTED) == [(20_000, result.batches)]


@SIDE_BY_SIDE
async def test_answers_to_their_commits_are_lost(db: Database, proxy_to: FaultProxy.Factory, side: Spec) -> None:
    ledger = await Ledger.make(db, ROWS)
    proxy = await proxy_to(db.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await ledger.backfill(replace(side, rows_per_second=8_000))
    running = asyncio.create_task(backfill.run())
    for done in (0, 4_000, 9_000):
        await scene.until(lambda p, done=done: p.rows_done > done)
        proxy.drop_answer_to(b"one batch of a backfill")
    result = await running
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert await ledger.violations() == []
    assert await db.sql(COUNTED) == [(20_000, result.batches)]


async def test_a_worker_of_before_that_wakes_up_late_is_fenced(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await Ledger.make(db18, ROWS)
    backfill, _ = await ledger.backfill(SIDE)
    asleep, awake = asyncio.Event(), asyncio.Event()
    fill_beside = BatchSession.fill_beside

    async def slept(self: BatchSession, *args: Any) -> Any:
        asleep.set()
        await awake.wait()
        return await fill_beside(self, *args)

    monkeypatch.setattr(BatchSession, "fill_beside", slept)
    old = asyncio.create_task(backfill.run())
    await asleep.wait()
    await db18.sql("UPDATE dbwatch.backfill SET epoch = epoch + 1, owner = 'somebody else'")
    awake.set()
    with pytest.raises(Fenced, match="taken over"):
        await old
    assert await db18.sql("SELECT count(*) FROM t WHERE v <> 0") == [(0,)]


@SIDE_BY_SIDE
async def test_a_row_that_is_locked_is_waited_for(db: Database, side: Spec) -> None:
    ledger = await Ledger.make(db, ROWS)
    holder = await db.foreign("reports", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 20000 FOR UPDATE")
    backfill, scene = await ledger.backfill(side, thresholds=QUICK)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.state is State.THROTTLED)
    await holder.rollback()
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []


@SIDE_BY_SIDE
async def test_poison_is_set_aside_and_all_else_is_filled(db: Database, side: Spec) -> None:
    ledger = await Ledger.make(db, ROWS)
    await db.sql("ALTER TABLE t ADD CONSTRAINT good CHECK (id % 9000 <> 0 OR v = 0)")
    result = await ledger.run(side)
    assert (result.outcome, result.rows, result.quarantined) == (State.DONE, 19_996, 4)
    assert [times for _, times, _ in await ledger.violations()] == [0] * 4


async def test_two_that_start_at_once_do_not_both(db18: Database) -> None:
    ledger = await Ledger.make(db18, ROWS)
    results = await asyncio.gather(ledger.run(SIDE), ledger.run(SIDE), return_exceptions=True)
    assert sum(isinstance(each, Refused) for each in results) <= 1
    with contextlib.suppress(Refused):
        await ledger.run(SIDE)
    assert await ledger.violations() == []


@SIDE_BY_SIDE
async def test_a_stop_ends_all_of_them_between_two_batches(db18: Database, side: Spec) -> None:
    ledger = await Ledger.make(db18, ROWS)
    backfill, scene = await ledger.backfill(replace(side, rows_per_second=10_000))
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.rows_done > 0)
    scene.control.stop()
    result = await asyncio.wait_for(running, 5)
    [(done,)] = await db18.sql("SELECT count(*) FROM t WHERE v = 1")
    assert (result.outcome, result.rows) == (State.STOPPED, done)
    assert await db18.sql(COUNTED) == [(done, result.batches)]
    await finished(ledger, side)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": "once", "where": "true"}, "one cursor keeps a row"),
        ({"workers": 0}, "0 workers are out of range"),
        ({"workers": 17}, "17 workers are out of range"),
    ],
)
async def test_what_cannot_be_done_side_by_side_is_refused(
    db18: Database, changes: dict[str, object], why: str
) -> None:
    ledger = await Ledger.make(db18)
    with pytest.raises(UsageError, match=why):
        await ledger.plan(replace(SIDE, **changes))  # type: ignore[arg-type]


@SIDE_BY_SIDE
async def test_one_that_is_slow_to_connect_holds_up_nobody(
    db18: Database, monkeypatch: pytest.MonkeyPatch, side: Spec
) -> None:
    ledger = await Ledger.make(db18, ROWS)
    opening = BatchSession.open

    async def opened(connector: Connector) -> BatchSession:
        task = asyncio.current_task()
        if task is not None and task.get_name().startswith("backfill hand 1 "):
            await asyncio.sleep(60)
        return await opening(connector)

    monkeypatch.setattr(BatchSession, "open", opened)
    backfill, scene = await ledger.backfill(side)
    async with asyncio.timeout(20):
        result = await backfill.run()
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert await ledger.violations() == []
    assert max(len({*p.crew, p.worker}) for p in scene.told) == 4
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("backfill hand")]


@SIDE_BY_SIDE
async def test_a_cursor_that_a_late_message_of_ours_moved_is_no_taking_over(
    db18: Database, monkeypatch: pytest.MonkeyPatch, side: Spec
) -> None:
    ledger = await Ledger.make(db18, ROWS)
    moving, late = row.move, 0

    async def moved(*args: Any, **more: Any) -> bool:
        nonlocal late
        if not late:  # what was sent over a connection that is lost comes in before what is sent over the next one
            late = 1
            assert await moving(*args, **more)
        return await moving(*args, **more)

    monkeypatch.setattr(row, "move", moved)
    result = await ledger.run(side)
    assert (result.outcome, result.rows, late) == (State.DONE, 20_000, 1)
    assert await ledger.violations() == []
