"""Exactly once: whatever happens to the process, the connection or the server, each row is set one time.

The oracle is tests/ledger.py; tests/test_backfill_oracle.py shows that it catches versions without protection.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import psycopg
import pytest
from ledger import ONCE, WORKER_WAITS, Ledger, run_elsewhere, wait_for
from proxy import FaultProxy
from servers import Database, OwnServers

from dbwatch.backfill.progress import State
from dbwatch.errors import Fenced, Refused
from dbwatch.postgres.session import Connector

PATIENT = replace(ONCE, lock_timeout_ms=30_000)
"""Waits for a lock as long as a test likes to hold one."""

BATCH = b"filled AS ("
"""In the message that carries a batch, from BEGIN to COMMIT."""


async def test_an_undisturbed_run_sets_each_row_once(db: Database) -> None:
    ledger = await Ledger.make(db)
    result = await ledger.run()
    assert (result.outcome, result.rows, result.pending) == (State.DONE, 3000, 0)
    assert result.batches > 3
    assert await ledger.violations() == []


async def test_a_process_killed_in_the_middle_of_a_batch_is_taken_over_at_once(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 3000 FOR UPDATE")
    process = await run_elsewhere(db.dsn, PATIENT)
    await wait_for(db, WORKER_WAITS)
    process.kill()
    await process.wait()
    await holder.rollback()
    result = await ledger.run(PATIENT)
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert await ledger.violations() == []
    assert (await ledger.row())[:2] == ("done", 2)


async def test_kills_at_any_moment_lose_and_repeat_nothing(db: Database) -> None:
    ledger = await Ledger.make(db, "SELECT generate_series(1, 20000)")
    moments = random.Random(7)
    for _ in range(3):
        process = await run_elsewhere(db.dsn, ONCE)
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(moments.randint(0, 6)):
            await process.stdout.readline()
        await asyncio.sleep(moments.random() * 0.02)
        process.kill()
        await process.wait()
    result = await ledger.run()
    assert (result.outcome, result.rows) == (State.DONE, 20_000)
    assert await ledger.violations() == []


async def test_a_commit_whose_answer_is_lost_is_not_repeated(db: Database, proxy_to: FaultProxy.Factory) -> None:
    ledger = await Ledger.make(db)
    proxy = await proxy_to(db.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await ledger.backfill()
    lost_after = {1, 3, 4}

    def lose(progress: object) -> None:
        if scene.told[-1].state is State.RUNNING and scene.told[-1].batches in lost_after:
            lost_after.discard(scene.told[-1].batches)
            proxy.drop_answer_to(BATCH)

    scene.react = lose
    result = await backfill.run()
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert any("connection lost" in reason for reason in scene.reasons(State.THROTTLED))
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


@pytest.mark.parametrize("major", [15, 18])
async def test_a_server_that_crashes_and_restarts_is_gone_on_with(own_server: OwnServers, major: int) -> None:
    server = await own_server(major)
    ledger = await Ledger.make(await own_server.database(server), "SELECT generate_series(1, 12000)")
    backfill, scene = await ledger.backfill()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 3)
    await server.restart("immediate")
    result = await running
    assert (result.outcome, result.rows) == (State.DONE, 12_000)
    assert await ledger.violations() == []


async def test_a_failover_that_loses_commits_rewinds_rows_and_cursor_together(
    own_server: OwnServers, proxy_to: FaultProxy.Factory
) -> None:
    """The standby stops receiving, batches go on, the primary dies, the standby is promoted without them."""
    primary = await own_server(18)
    database = await own_server.database(primary)
    ledger = await Ledger.make(database, "SELECT generate_series(1, 12000)")
    standby = await own_server.standby(primary)
    proxy = await proxy_to(database.dsn)
    ledger.connector = Connector(proxy.dsn)
    backfill, scene = await ledger.backfill()
    running = asyncio.create_task(backfill.run())

    async def pause_at(batches: int) -> int:
        scene.react = lambda p: scene.control.pause() if p.batches >= batches else None
        scene.control.resume()
        return (await scene.until(lambda p: p.state is State.PAUSED)).batches

    await pause_at(3)
    replica = await psycopg.AsyncConnection.connect(standby.dsn, autocommit=True)
    await replica.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await replica.execute("SELECT pg_reload_conf()")
    await wait_for(database, "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")
    lost = await pause_at(8)
    await database.close()
    await primary.kill9()
    await replica.execute("SELECT pg_promote()")
    await replica.close()
    proxy.lead_to(standby.dsn_of(database.name))
    scene.react = lambda _: None
    scene.control.resume()
    rewound = await scene.until(lambda p: p.state is State.RUNNING)
    assert rewound.batches < lost
    assert (await running).rows == 12_000
    ledger.database = replace(database, server=standby, dsn=standby.dsn_of(database.name))
    assert await ledger.violations() == []


async def test_of_two_operators_at_once_one_works_and_the_other_is_told_who(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 3000 FOR UPDATE")
    pair = [(await ledger.backfill(PATIENT))[0] for _ in range(2)]
    runs = [asyncio.create_task(backfill.run()) for backfill in pair]
    done, working = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    await holder.rollback()
    [refused], [other] = done, working
    worker = pair[runs.index(other)].owner
    with pytest.raises(Refused, match=worker):
        refused.result()
    assert (await other).rows == 3000
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


async def test_in_a_deadlock_the_application_lives_and_no_row_is_missed(db: Database) -> None:
    """The application locks keys downwards; we wait for the higher one before it asks for the lower one."""
    ledger = await Ledger.make(db)
    application = await db.foreign(autocommit=False)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = 900")
    backfill, scene = await ledger.backfill(PATIENT)
    running = asyncio.create_task(backfill.run())
    await wait_for(db, WORKER_WAITS)
    await application.execute("UPDATE t SET pad = 'a' WHERE id = 2")
    await application.commit()
    assert (await running).rows == 3000
    assert any("deadlock" in reason for reason in scene.reasons(State.THROTTLED))
    assert await ledger.violations() == []


async def test_a_row_that_is_locked_for_a_while_is_waited_for_in_short_attempts(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 3000 FOR UPDATE")
    backfill, scene = await ledger.backfill()
    running = asyncio.create_task(backfill.run())
    told = await scene.until(lambda p: "try 3" in p.reason)
    assert told.state is State.THROTTLED
    assert told.batch_rows < 500
    assert "waits for a lock held by" in told.reason
    await holder.rollback()
    assert (await running).rows == 3000
    assert await ledger.violations() == []


async def test_inserts_and_deletes_around_the_cursor_disturb_no_other_row(db: Database) -> None:
    ledger = await Ledger.make(db, "SELECT generate_series(2, 30000, 2)")

    async def application(seed: int) -> None:
        chance = random.Random(seed)
        connection = await db.foreign(f"app-{seed}")
        while True:
            key = chance.randrange(1, 40_000)
            await connection.execute("INSERT INTO t (id) VALUES (%s) ON CONFLICT DO NOTHING", [key | 1])
            await connection.execute("DELETE FROM t WHERE id = %s", [chance.randrange(1, 30_000)])
            await connection.execute("UPDATE t SET pad = pad || 'y' WHERE id = %s", [key])

    users = [asyncio.create_task(application(seed)) for seed in range(3)]
    result = await ledger.run()
    for user in users:
        user.cancel()
    assert result.outcome is State.DONE
    assert await ledger.violations() == []


async def test_rows_inserted_above_the_highest_key_of_the_start_stay_out(db: Database) -> None:
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 1)
    await db.sql("INSERT INTO t (id) SELECT generate_series(10001, 10500)")
    await running
    assert await db.sql("SELECT count(*) FROM t WHERE id > 10000 AND v = 0") == [(500,)]


async def test_a_stopped_run_is_gone_on_with_where_it_stood(db: Database) -> None:
    ledger = await Ledger.make(db)
    backfill, scene = await ledger.backfill()
    scene.react = lambda p: scene.control.stop() if p.batches == 2 else None
    stopped = await backfill.run()
    assert (stopped.outcome, stopped.batches, stopped.pending) == (State.STOPPED, 2, None)
    assert (await ledger.row())[0] == "stopped"
    result = await ledger.run()
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert await ledger.violations() == []


async def test_a_cancelled_batch_is_rolled_back_and_the_run_ends(db: Database) -> None:
    ledger = await Ledger.make(db)
    holder = await db.foreign(autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 3000 FOR UPDATE")
    backfill, scene = await ledger.backfill(PATIENT)
    running = asyncio.create_task(backfill.run())
    await wait_for(db, WORKER_WAITS)
    worker = scene.told[-1].worker
    assert worker is not None
    scene.control.abort()
    canceller = await db.foreign("control")
    await canceller.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s",
        [worker.pid, worker.backend_start],
    )
    stopped = await asyncio.wait_for(running, 2)
    assert stopped.outcome is State.STOPPED
    assert await db.sql("SELECT sum(v) FROM t") == [(stopped.rows,)]
    await holder.rollback()
    assert (await ledger.run(PATIENT)).rows == 3000
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
    scene.react = lambda p: scene.control.stop() if p.batches == 2 else None
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
