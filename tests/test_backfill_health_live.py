"""The health signals as real servers give them: on every major, behind locks, and for a role that may see little."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import ONCE, QUICK, WORKER_WAITS, Ledger, wait_for
from servers import Database, OwnServers, eventually

from dbwatch.backfill import sight
from dbwatch.backfill.health import Gate, Thresholds
from dbwatch.backfill.progress import State
from dbwatch.backfill.reading import SLOW_EVERY, Reading
from dbwatch.backfill.signals import BRISK_POLLS, NAMES
from dbwatch.backfill.watch import Watch
from dbwatch.clock import SystemClock
from dbwatch.errors import Exit
from dbwatch.postgres.session import Connector, Role
from dbwatch.runbook import model, values
from dbwatch.steps.backfill import asked

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = false)"
ROWS = "INSERT INTO t SELECT generate_series(1, 2000)"


def watching(db: Database, **thresholds: float) -> Watch:
    return Watch(db.connector, SystemClock(), Thresholds(**{"poll_s": 0.05, **thresholds}), table=("public", "t"))


async def looked(watch: Watch, times: int = 1) -> Reading:
    for _ in range(times):
        await watch.look()
    assert watch.reading is not None
    return watch.reading


async def end(watch: Watch) -> None:
    """Closes its connection."""
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching})


async def test_everything_is_read_on_every_major(any_db: Database) -> None:
    await any_db.sql("CREATE EXTENSION pg_stat_statements", TABLE, ROWS)
    slot = f"s_{any_db.name}"
    await any_db.sql("SELECT pg_create_physical_replication_slot('" + slot + "', true)")
    watch = watching(any_db)
    try:
        report = await any_db.foreign("report", autocommit=False)
        await report.execute("SELECT pg_current_xact_id()" if any_db.major > 13 else "SELECT txid_current()")
        app = await any_db.foreign("shop")
        await app.execute("SELECT count(*) FROM t")
        before = await looked(watch)
        for _ in range(40):
            await app.execute("SELECT count(*) FROM t")
        told = await looked(watch, SLOW_EVERY + 1)
        assert told.server is not None
        assert told.server.active is not None
        assert 0 < told.server.connections < told.server.usable
        assert told.server.identity[1] == "00000001"
        assert (told.server.max_wal_size, told.server.checkpoint_timeout_s) == (2**30, 300.0)
        assert [s.wal_status for s in told.slots if s.name == slot] == ["reserved"]
        assert [h.who for h in told.holders] == [f"session {report.info.backend_pid} (report)"]
        assert told.counts is not None
        assert told.counts.deadlocks == 0
        assert told.table is not None
        assert not told.table.cleaned
        assert told.table.freeze_age >= 0
        assert set(told.slow) == {"counts", "table", "calls"}
        assert watch.usual_ms is not None
        assert before.latency is None
        for _ in range(40):
            await app.execute("SELECT count(*) FROM t")
        again = await looked(watch, SLOW_EVERY + 1)
        assert again.latency is not None
        assert 40 <= again.latency.calls < 60  # without the dozens of our own looks
        assert Gate().see(told, told.at).open
    finally:
        await end(watch)
        await any_db.sql("SELECT pg_drop_replication_slot('" + slot + "')")


async def test_how_busy_those_are_who_come_and_go_is_seen_on_every_major(any_db: Database) -> None:
    """One that a long statement keeps is not one of them, nor is one that does nothing."""
    report = await any_db.foreign("report")
    long = asyncio.create_task(report.execute("SELECT pg_sleep(6)"))
    idle, shop = await any_db.foreign("idle"), await any_db.foreign("shop")
    await idle.execute("SELECT 1")
    await asyncio.sleep(1.5)
    watch = watching(any_db)
    short = asyncio.create_task(shop.execute("SELECT pg_sleep(0.5)"))
    await asyncio.sleep(0.1)
    while_it_works = (await looked(watch)).server
    await short
    after_it = (await looked(watch)).server
    await end(watch)
    assert while_it_works is not None
    assert after_it is not None
    assert (while_it_works.brisk, while_it_works.busy) == (1, 1)
    assert (after_it.brisk, after_it.busy) == (1, 0)
    assert (while_it_works.active, after_it.active) == (2, 1)
    report.cancel()
    await asyncio.wait({long})


async def test_where_others_work_the_first_look_is_of_several_moments(db18: Database) -> None:
    alone = watching(db18)
    nobody = (await looked(alone)).server
    shops = [await db18.foreign("shop") for _ in range(5)]

    async def work(shop: psycopg.AsyncConnection[Any]) -> None:
        while True:
            await shop.execute("SELECT pg_sleep(0.01)")

    at_work = [asyncio.create_task(work(shop)) for shop in shops]
    await asyncio.sleep(0.2)
    watch = watching(db18)
    first, second = (await looked(watch)).server, (await looked(watch)).server
    for task in at_work:
        task.cancel()
    await asyncio.wait(at_work)
    await end(alone)
    await end(watch)
    assert nobody is not None
    assert first is not None
    assert second is not None
    assert nobody.glances == second.glances == ()
    assert len(first.glances) == BRISK_POLLS - 1
    assert all(brisk == 5 for brisk, _ in first.glances)


async def test_nothing_of_it_waits_for_a_lock_on_the_table(db: Database) -> None:
    await db.sql("CREATE EXTENSION pg_stat_statements", TABLE, ROWS)
    locker = await db.foreign("ddl", autocommit=False)
    await locker.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
    watch = watching(db)
    async with asyncio.timeout(2):
        told = await looked(watch, 2 * SLOW_EVERY)
    assert told.table is not None
    assert set(told.slow.values()) == {told.slow["table"]}
    await end(watch)


async def test_dead_rows_and_updates_come_from_the_statistics_of_all_partitions(db18: Database) -> None:
    await db18.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (9000)",
        ROWS,
        "UPDATE t SET v = 1",
    )
    watch = watching(db18)

    async def counted() -> bool:
        table = (await looked(watch, SLOW_EVERY + 1)).table
        return table is not None and table.live >= 2000 and table.updated == 2000 and table.cleaned

    await eventually(counted)
    await end(watch)


async def test_a_batch_that_harms_far_too_much_is_cancelled_and_goes_on_when_it_is_calm(db: Database) -> None:
    """Our batch waits for a row for half a minute, and the application for those that it holds already."""
    ledger = await Ledger.make(db)
    holder = await db.foreign("report", autocommit=False)
    await holder.execute("SELECT FROM t WHERE id = 200 FOR UPDATE")
    patient = replace(ONCE, lock_timeout_ms=30_000)
    backfill, scene = await ledger.backfill(patient, thresholds=replace(QUICK, blocked_s=0.2))
    running = asyncio.create_task(backfill.run())
    await wait_for(db, WORKER_WAITS)
    cancelled = asyncio.create_task(scene.until(lambda p: p.reason.startswith("cancelled the batch: we block ")))
    victim = await db.foreign("shop")
    await victim.execute("UPDATE t SET pad = 'a' WHERE id = 2")  # while the row that our batch waits for is held
    assert (await cancelled).state is State.THROTTLED
    await holder.rollback()
    assert (await running).rows == 3000
    assert await ledger.violations() == []


async def test_an_override_lets_it_go_on_while_it_lasts(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 60000)")
    report = await db18.foreign("report", autocommit=False)
    await report.execute("SELECT pg_current_xact_id()")
    backfill, scene = await ledger.backfill(thresholds=replace(QUICK, xmin_s=0.05))
    paused = asyncio.create_task(scene.until(lambda p: "(report) keeps dead rows from being removed" in p.reason))
    running = asyncio.create_task(backfill.run())
    assert (await paused).state is State.THROTTLED
    scene.control.override("xmin", 60)
    assert (await running).rows == 60_000
    told = scene.told[-1]
    assert [name for name, _ in told.overridden] == ["xmin"]
    assert any(p.reason.startswith("xmin is overridden for") for p in scene.told if p.state is State.RUNNING)


async def test_a_restart_of_the_server_pauses_it_and_it_goes_on(own_server: OwnServers) -> None:
    server = await own_server(18)
    database = await own_server.database(server)
    ledger = await Ledger.make(database, "SELECT generate_series(1, 20000)")
    backfill, scene = await ledger.backfill(thresholds=QUICK)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 2)
    paused = asyncio.create_task(scene.until(lambda p: p.reason == "the server is just started anew"))
    await server.restart("immediate")
    assert (await paused).was == "the server was just started anew"
    assert (await running).rows == 20_000
    assert await ledger.violations() == []


async def test_a_role_that_is_kept_in_the_dark_is_refused_until_it_says_what_it_does_without(db: Database) -> None:
    await db.sql(TABLE, ROWS)
    role = f"dark_{db.name}"
    await db.sql(
        f"CREATE ROLE {role} LOGIN", f"ALTER TABLE t OWNER TO {role}", f"GRANT ALL ON DATABASE {db.name} TO {role}"
    )
    try:
        command = ("--table", "t", "--set", "v = 1", "--where", "v IS NULL")
        code, out, err = await _door(db.dsn_as(role), *command)
        assert (code, out) == (Exit.REFUSED, "")
        assert f"GRANT pg_read_all_stats TO {role}, or ignore them: --without active --without xmin" in err
        code, out, _ = await _door(db.dsn_as(role), *command, "--dry-run")
        assert code == Exit.OK
        assert f"health signals hidden from {role}: active, xmin, vacuum: GRANT pg_read_all_stats TO {role}" in out
        assert "latency (pg_stat_statements is not installed in this database)" in out
        code, out, err = await _door(db.dsn_as(role), *command, "--without", "active", "--without", "xmin")
        assert (code, err) == (Exit.OK, "")
        last = json.loads(out.splitlines()[-1])
        assert (last["rows"], last["harm"]) == (2000, "delayed nobody that was seen")
    finally:
        await db.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_the_role_that_polls_is_the_one_that_has_to_see(db18: Database) -> None:
    poor, rich = f"poor_{db18.name}", f"rich_{db18.name}"
    await db18.sql(f"CREATE ROLE {poor} LOGIN", f"CREATE ROLE {rich} LOGIN", f"GRANT pg_monitor TO {rich}")
    try:
        apart = Connector(db18.dsn_as(poor), roles={Role.MONITOR: db18.dsn_as(rich)})
        session = await apart.open(Role.PROBE)
        assert (await sight.of(apart, session)).missing([]) == {}
        assert "active" in (await sight.of(Connector(db18.dsn_as(poor)), session)).missing([])
        await session.close()
    finally:
        await db18.sql(f"DROP ROLE {poor}", f"DROP ROLE {rich}")


async def test_a_signal_that_is_none_is_a_mistake_that_names_those_that_are(db18: Database) -> None:
    await db18.sql(TABLE)
    arguments = ("--table", "t", "--set", "v = 1", "--where", "v IS NULL", "--without", "leg")
    code, _, err = await _door(db18.dsn, *arguments)
    assert code == Exit.USAGE
    assert "there is no health signal 'leg'" in err
    assert ", ".join(NAMES) in err


def test_a_runbook_says_what_its_backfill_does_without() -> None:
    data = {"id": "fill", "kind": "backfill", "table": "t", "set": "v = 1", "where": "v IS NULL", "without": ["lag"]}
    assert asked(model.Backfill.model_validate(data)).without == ("lag",)
    with pytest.raises(ValueError, match='"leg" is no health signal; choose of blocked, active'):
        model.Backfill.model_validate({**data, "without": ["leg"]})
    assert set(values.SIGNALS) == set(NAMES)


async def _door(dsn: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dbwatch", "backfill", dsn, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
