"""The health gate on real servers: whom we block, how far the replicas are, and not seeing at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, wait_for
from proxy import FaultProxy
from servers import Database, OwnServers

from dbwatch.backfill.health import Reading, Thresholds
from dbwatch.backfill.progress import State
from dbwatch.backfill.watch import Watch
from dbwatch.clock import SystemClock
from dbwatch.postgres.session import Connector, Role

PATIENT = replace(ONCE, lock_timeout_ms=30_000)


LONG_ENOUGH = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE application_name = 'shop' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '0.6 s'
)
"""


async def test_a_session_that_we_block_pauses_us_and_is_named(db: Database) -> None:
    """Our batch waits for a row and holds those before it, which the application wants."""
    ledger = await Ledger.make(db)
    holder = await db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 200 FOR UPDATE")
    thresholds = replace(QUICK, blocked_s=0.5)
    backfill, scene = await ledger.backfill(PATIENT, thresholds=thresholds)
    running = asyncio.create_task(backfill.run())
    await wait_for(db, WORKER_WAITS)
    victim = await db.foreign("shop")
    wanting = asyncio.create_task(victim.execute("UPDATE t SET pad = 'a' WHERE id = 2"))
    await wait_for(db, LONG_ENOUGH)
    await holder.rollback()
    throttled = await scene.until(lambda p: p.state is State.THROTTLED)
    assert f"we block {victim.info.backend_pid} (shop)" in throttled.reason
    await wanting
    assert (await running).rows == 3000
    assert await ledger.violations() == []


@pytest.mark.majors
async def test_whom_we_block_and_who_blocks_us_is_seen_on_every_major(any_db: Database) -> None:
    await any_db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    ours, victim, holder = [await any_db.foreign(n, autocommit=False) for n in ("ours", "victim", "holder")]
    await ours.execute("SELECT FROM t WHERE id = 1 FOR UPDATE")
    await holder.execute("SELECT FROM t WHERE id = 2 FOR UPDATE")
    waiting = [
        asyncio.create_task(victim.execute("SELECT FROM t WHERE id = 1 FOR UPDATE")),
        asyncio.create_task(ours.execute("SELECT FROM t WHERE id = 2 FOR UPDATE")),
    ]
    both = "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    await wait_for(any_db, both)
    watch = Watch(any_db.connector, SystemClock(), Thresholds(poll_s=0.05))
    watch.workers = (ours.info.backend_pid,)
    polling = asyncio.create_task(watch.run())
    reading = await _seen(watch, lambda r: bool(r.waiters) and r.waiters[0].seconds > 0.1)
    assert [(w.pid, w.application) for w in reading.waiters] == [(victim.info.backend_pid, "victim")]
    assert reading.worker_waits_for == f"{holder.info.backend_pid} (holder)"
    assert reading.worker_waits_s is not None
    polling.cancel()
    await holder.rollback()
    await waiting[1]
    await ours.rollback()
    await waiting[0]


async def _seen(watch: Watch, wanted: object) -> Reading:
    async with asyncio.timeout(10):
        while True:
            if watch.reading is not None and callable(wanted) and wanted(watch.reading):
                return watch.reading
            await asyncio.sleep(0.02)


async def test_a_replica_that_falls_behind_pauses_us_until_it_has_caught_up(own_server: OwnServers) -> None:
    primary = await own_server(18)
    database = await own_server.database(primary)
    ledger = await Ledger.make(database, "SELECT generate_series(1, 20000)")
    standby = await own_server.standby(primary)
    replica = Database(database.name, standby, standby.dsn_of(database.name), Connector(standby.dsn))
    await replica.sql("SELECT pg_wal_replay_pause()")
    thresholds = replace(QUICK, poll_s=0.02, lag_s=None, lag_bytes=500_000)
    backfill, scene = await ledger.backfill(thresholds=thresholds)
    running = asyncio.create_task(backfill.run())
    throttled = await scene.until(lambda p: p.reason.startswith("replica standby is"))
    assert throttled.state is State.THROTTLED
    assert throttled.reason.endswith("of WAL behind")
    await replica.sql("SELECT pg_wal_replay_resume()")
    assert (await running).rows == 20_000
    assert await ledger.violations() == []


async def test_without_health_readings_it_pauses_and_says_so(db18: Database, proxy_to: FaultProxy.Factory) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 40000)")
    proxy = await proxy_to(db18.dsn)
    ledger.connector = Connector(db18.dsn, roles={Role.MONITOR: proxy.dsn})
    backfill, scene = await ledger.backfill(thresholds=replace(QUICK, poll_s=0.05))
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 2)
    proxy.stall()
    blind = await scene.until(lambda p: p.state is State.THROTTLED)
    assert blind.reason.startswith("no health reading for")
    proxy.resume()
    assert (await running).rows == 40_000
