"""Exactly once: whatever happens to the process, the connection or the server, each row is set one time.

The oracle is tests/ledger.py. The twelve faults are in tests/test_backfill_faults.py, with the versions of the engine
that do not survive them; here is what else may happen, and every kind of key.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import psycopg
import pytest
from ledger import ONCE, WORKER_WAITS, Ledger, wait_for
from proxy import FaultProxy
from servers import Database

from dbwatch.backfill.progress import State
from dbwatch.errors import Fenced
from dbwatch.postgres.session import Connector

PATIENT = replace(ONCE, lock_timeout_ms=30_000)
"""Waits for a lock as long as a test likes to hold one."""


async def test_an_undisturbed_run_sets_each_row_once(db: Database) -> None:
    ledger = await Ledger.make(db)
    result = await ledger.run()
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 3000, 0)
    assert result.batches > 3
    assert await ledger.violations() == []


async def test_a_network_that_is_cut_again_and_again_costs_time_only(
    db: Database, proxy_to: FaultProxy.Factory
) -> None:
    ledger = await Ledger.make(db, "SELECT generate_series(1, 12000)")
    proxy = await proxy_to(db.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await ledger.backfill()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 1)  # its first connection has to hold until the claim is made
    moments = random.Random(11)
    for _ in range(8):
        await asyncio.sleep(moments.random() * 0.1)
        proxy.cut()
    assert (await running).rows == 12_000
    assert await ledger.violations() == []


async def test_an_owner_that_was_taken_over_loses_the_batch_it_is_in(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 3000 FOR UPDATE")
    first = asyncio.create_task(ledger.run(PATIENT))
    await wait_for(db, WORKER_WAITS)
    await db.sql("UPDATE dbwatch.backfill SET beat_at = clock_timestamp() - interval '1 minute'")
    second = asyncio.create_task(ledger.run(PATIENT))
    await wait_for(db, "SELECT max(epoch) = 2 FROM dbwatch.backfill")
    await holder.rollback()
    with pytest.raises(Fenced):
        await first
    assert (await second).rows == 3000
    assert await ledger.violations() == []


async def test_a_stopped_run_is_gone_on_with_where_it_stood(db: Database) -> None:
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: scene.control.stop() if p.batches >= 2 else None
    stopped = await backfill.run()
    assert (stopped.outcome, stopped.batches, stopped.pending) == (State.STOPPED, 2, None)
    assert (await ledger.row())[0] == "stopped"
    result = await ledger.run()
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert await ledger.violations() == []


async def test_a_terminated_worker_connects_again_and_goes_on(db: Database) -> None:
    ledger = await Ledger.make(db, "SELECT generate_series(1, 8000)")
    backfill, scene = await ledger.backfill()

    def terminate(progress: object) -> None:
        told = scene.told[-1]
        if told.batches in (1, 4) and told.state is State.RUNNING and told.worker is not None:
            with psycopg.connect(db.dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [told.worker.pid])

    scene.react = terminate
    assert (await backfill.run()).rows == 8000
    assert await ledger.violations() == []


async def test_a_finished_one_says_so_and_does_nothing_unless_asked_again(db: Database) -> None:
    ledger = await Ledger.make(db)
    await ledger.run()
    told = await ledger.run()
    assert told.already
    assert "finished at" in told.note
    assert await ledger.violations() == []
    again = await ledger.run(again=True)
    assert (again.already, again.rows) == (False, 3000)
    assert await db.sql("SELECT DISTINCT v FROM t") == [(2,)]


KEYS = [
    ("two integers", "a int, b int, PRIMARY KEY (a, b)", "a, b", "SELECT i % 7, i FROM {i}"),
    (
        "text and date",
        "a text, b date, PRIMARY KEY (a, b)",
        "a, b",
        "SELECT 'k' || i % 50, date '2000-01-01' + i FROM {i}",
    ),
    ("uuid", "id uuid PRIMARY KEY", "id", "SELECT md5(i::text)::uuid FROM {i}"),
    ("text", "id text PRIMARY KEY", "id", "SELECT left(md5(i::text), 4) || E' \\\\ '' %s {{é}} ' || i FROM {i}"),
    ("text by bytes", 'id text COLLATE "C" PRIMARY KEY', "id", "SELECT chr(65 + i % 60) || i FROM {i}"),
    ("varchar", "id varchar(20) PRIMARY KEY", "id", "SELECT 'x' || i FROM {i}"),
    ("char", "id char(8) PRIMARY KEY", "id", "SELECT i FROM {i}"),
    ("timestamptz", "id timestamptz PRIMARY KEY", "id", "SELECT now() - i * interval '1.000001 s' FROM {i}"),
    (
        "timestamp",
        "id timestamp PRIMARY KEY",
        "id",
        "SELECT '4000-01-01 BC'::timestamp + i * interval '1 day' FROM {i}",
    ),
    ("date", "id date PRIMARY KEY", "id", "SELECT date '1990-01-01' + i FROM {i}"),
    ("numeric", "id numeric PRIMARY KEY", "id", "SELECT i / 7.0 FROM {i}"),
    ("float", "id float8 PRIMARY KEY", "id", "SELECT i / 7.0::float8 FROM {i}"),
    ("bytea", "id bytea PRIMARY KEY", "id", "SELECT decode(md5(i::text), 'hex') FROM {i}"),
    ("negative", "id bigint PRIMARY KEY", "id", "SELECT i - 9223372036854775808 FROM {i}"),
    ("interval", "id interval PRIMARY KEY", "id", "SELECT i * interval '1 day 1 s' FROM {i}"),
    ("unique", "a int, b text NOT NULL UNIQUE", "b", "SELECT md5(i::text) FROM {i}"),
    ("odd names", '"a%s {b}" int PRIMARY KEY', '"a%s {b}"', "SELECT i FROM {i}"),
]


@pytest.mark.parametrize(("key", "columns", "rows"), [k[1:] for k in KEYS], ids=[k[0] for k in KEYS])
async def test_a_walk_goes_by_keys_of_any_exact_type(db18: Database, key: str, columns: str, rows: str) -> None:
    await _walk(db18, key, columns, rows)


@pytest.mark.parametrize(("key", "columns", "rows"), [k[1:] for k in KEYS[:4]], ids=[k[0] for k in KEYS[:4]])
async def test_a_walk_goes_by_keys_of_any_exact_type_on_15(db15: Database, key: str, columns: str, rows: str) -> None:
    await _walk(db15, key, columns, rows)


async def _walk(database: Database, key: str, columns: str, rows: str) -> None:
    ledger = await Ledger.make(database, rows.format(i="generate_series(1, 2500) AS i"), key=key, columns=columns)
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: scene.control.stop() if p.batches >= 2 else None
    assert (await backfill.run()).outcome is State.STOPPED
    result = await ledger.run()
    assert (result.outcome, result.rows) == (State.DONE, 2500)
    assert await ledger.violations() == []


async def test_a_walk_by_an_index_of_another_collation_compares_as_the_index_does(db: Database) -> None:
    ledger = await Ledger.make(
        db,
        "SELECT chr(65 + i % 60) || i FROM generate_series(1, 2500) AS i",
        key="id text NOT NULL, a int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    )
    await db.sql('CREATE UNIQUE INDEX by_bytes ON t (id COLLATE "C")')
    spec = replace(ONCE, key="id")
    assert 'COLLATE pg_catalog."C"' in (await ledger.plan(spec)).batch_sql
    assert (await ledger.run(spec)).rows == 2500
    assert await ledger.violations() == []
