"""A walk by pages: tables without a key, rows with NULL in theirs, partitions; nothing is left, whoever moves rows."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import Ledger, planned
from servers import Database

from dbwatch.backfill import final, quarantine
from dbwatch.backfill.cursor import Cursor
from dbwatch.backfill.progress import State
from dbwatch.backfill.run import Result
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.errors import DbwatchError, Refused
from dbwatch.journal import schema

FILL = Spec("u", "v = w", "v IS NULL", batch_time_ms=10)
LEFT = "SELECT count(*) FROM u WHERE v IS NULL"


async def table(db: Database, columns: str, *rows: str) -> Ledger:
    """A table u of *columns* with v to be filled from w."""
    await db.sql(f"CREATE TABLE u ({columns}, v int, w int NOT NULL DEFAULT 1, pad text DEFAULT repeat('x', 60))")
    await db.sql(*rows, "ANALYZE u")
    await schema.ensure(db.connector)
    return Ledger(db)


async def complete(db: Database, result: Result) -> None:
    assert (result.outcome, result.pending, result.note) == (State.DONE, 0, "")
    assert await db.sql(LEFT) == [(0,)]


async def test_a_table_without_a_key_is_filled_to_the_last_row(any_db: Database) -> None:
    ledger = await table(any_db, "a int", "INSERT INTO u (a) SELECT n % 7 FROM generate_series(1, 20000) AS n")
    found = await ledger.plan(FILL)
    assert (found.key, found.by_pages) == ((), True)
    result = await ledger.run(FILL)
    await complete(any_db, result)
    assert result.rows == 20_000
    assert (await ledger.run(FILL)).already


async def test_the_final_scan_tells_that_it_goes_on(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final, "GLANCE_ROWS", 0)  # as for a large table: it is scanned by keys, chunk by chunk
    ledger = await table(db18, "a int PRIMARY KEY", "INSERT INTO u (a) SELECT generate_series(1, 20000)")
    backfill, scene = await ledger.backfill(FILL)
    await complete(db18, await backfill.run())
    told = [p.remaining for p in scene.told if p.checking and p.state is State.RUNNING]
    assert told[0] is None
    assert len(told) > 2
    assert set(told[1:]) == {0}


async def test_the_few_rows_that_it_was_moved_past_are_filled_where_a_glance_sees_them(
    any_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scanned(*_: object, **__: object) -> None:
        raise AssertionError("the whole table was scanned by keys")

    ledger = await table(
        any_db,
        "a int PRIMARY KEY",
        "INSERT INTO u (a) SELECT generate_series(1, 60000)",
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE u SET v = NULL WHERE a IN (5, 70, 9000); RETURN NEW; END $$",
        "CREATE TRIGGER again AFTER UPDATE ON u FOR EACH ROW WHEN (NEW.a = 59999) EXECUTE FUNCTION again()",
    )
    if (await ledger.plan(FILL)).by_pages:  # from 14 on
        monkeypatch.setattr(final.FinalScan, "_sweep", scanned)
    result = await ledger.run(FILL)
    await complete(any_db, result)
    assert result.rows == 60_003


async def test_it_is_so_while_rows_are_moved_removed_and_added(db: Database) -> None:
    """Each update of the application moves a row to another page, ahead of the walk and behind it."""
    ledger = await table(db, "a int", "INSERT INTO u (a) SELECT generate_series(1, 30000)", "CREATE INDEX ON u (a)")
    stop = asyncio.Event()

    async def application() -> None:
        connection, n = await db.foreign("application"), 0
        while not stop.is_set():
            n = (n + 7919) % 30_000
            await connection.execute("UPDATE u SET pad = pad || 'y', a = a WHERE a BETWEEN %s AND %s", [n, n + 20])
            await connection.execute("DELETE FROM u WHERE a = %s", [n + 30])
            await connection.execute("INSERT INTO u (a) VALUES (%s)", [n + 30])
            await asyncio.sleep(0)

    working = asyncio.create_task(application())
    try:
        backfill, scene = await ledger.backfill(FILL)
        scene.react = lambda told: stop.set() if told.checking else None
        result = await backfill.run()
    finally:
        stop.set()
        await working
    assert result.outcome is State.DONE
    assert (await ledger.run(replace(FILL, where="v IS NULL AND true"))).pending == 0
    assert await db.sql(LEFT) == [(0,)]


@pytest.mark.parametrize("walk", [Walk.AUTO, Walk.STRIPES, Walk.PAGES])
async def test_rows_with_null_in_their_key_are_filled_too(any_db: Database, walk: Walk) -> None:
    ledger = await table(
        any_db,
        "a int UNIQUE",
        "INSERT INTO u (a) SELECT CASE WHEN n % 3 > 0 THEN n END FROM generate_series(1, 20000) AS n",
    )
    spec = replace(FILL, walk=walk if any_db.server.binaries.major >= 14 else Walk.AUTO)
    found = await ledger.plan(spec)
    assert (len(found.key), found.nullable) == (1, True)
    await complete(any_db, await ledger.run(spec))


@pytest.mark.parametrize("changes", [{"mode": "once"}, {"undo": True}, {"walk": Walk.KEYSET}])
async def test_what_needs_a_key_is_refused_without(db18: Database, changes: dict[str, Any]) -> None:
    ledger = await table(db18, "a int UNIQUE")
    for ddl in ("SELECT", "ALTER TABLE u DROP CONSTRAINT u_a_key"):
        await db18.sql(ddl)
        with pytest.raises(Refused, match="in mode pending, without --undo and --walk keyset, it needs none"):
            await ledger.plan(replace(FILL, **changes))


async def test_a_poison_row_of_a_table_without_a_key_ends_it_and_says_why(db18: Database) -> None:
    ledger = await table(
        db18,
        "a int",
        "INSERT INTO u (a) SELECT generate_series(1, 5000)",
        "ALTER TABLE u ADD CHECK (a <> 4321 OR v IS NULL)",
    )
    with pytest.raises(DbwatchError, match="violates check constraint"):
        await ledger.run(FILL)
    await db18.sql("DELETE FROM u WHERE a = 4321")
    await complete(db18, await ledger.run(FILL))


async def test_poison_is_left_to_the_scan_by_keys_which_sets_it_aside(db18: Database) -> None:
    ledger = await table(
        db18,
        "a int PRIMARY KEY",
        "INSERT INTO u (a) SELECT generate_series(1, 60000)",
        "ALTER TABLE u ADD CHECK (a NOT IN (17, 30000, 30001) OR v IS NULL)",
    )
    assert (await ledger.plan(FILL)).by_pages
    result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.quarantined, result.pending) == (State.DONE, 59_997, 3, 3)
    held = await db18.sql("SELECT key FROM dbwatch.quarantine ORDER BY 1")
    assert held == [('["17"]',), ('["30000"]',), ('["30001"]',)]
    await db18.sql("ALTER TABLE u DROP CONSTRAINT u_check")
    assert (await quarantine.retry(db18.connector, result.id)).filled == 3
    assert await db18.sql(LEFT) == [(0,)]


@pytest.mark.parametrize("first", [Walk.AUTO, Walk.KEYSET])
async def test_cut_off_again_and_again_it_leaves_nothing_whichever_way_it_goes_on(db: Database, first: Walk) -> None:
    ledger = await table(db, "a int PRIMARY KEY", "INSERT INTO u (a) SELECT generate_series(1, 50000)")
    stood = set()
    for cut in range(60):
        walk = Walk.KEYSET if (cut % 8 == 7) is (first is Walk.AUTO) else Walk.AUTO
        backfill, scene = await ledger.backfill(replace(FILL, walk=walk))
        scene.react = lambda _, scene=scene, told=3 + cut % 5: scene.control.stop() if len(scene.told) > told else None
        result = await backfill.run()
        if result.outcome is State.DONE:
            break
        [(cursor,)] = await db.sql("SELECT cursor FROM dbwatch.backfill")
        stood.add(Cursor.from_text(cursor).leg)
    await complete(db, await ledger.run(replace(FILL, where="v IS NULL AND true")))
    assert stood >= {"", "pages of public.u"}


async def partitions(db: Database, columns: str) -> Ledger:
    """A table u in four partitions, one of them in two, each of other rows."""
    await db.sql(
        f"CREATE TABLE u ({columns}, v int, w int NOT NULL DEFAULT 1, pad text DEFAULT '') PARTITION BY RANGE (a)",
        'CREATE TABLE "the first" PARTITION OF u FOR VALUES FROM (0) TO (20000)',
        "CREATE TABLE second PARTITION OF u FOR VALUES FROM (20000) TO (30000)",
        "CREATE TABLE third PARTITION OF u FOR VALUES FROM (30000) TO (50000) PARTITION BY LIST (w)",
        "CREATE TABLE third_1 PARTITION OF third FOR VALUES IN (1)",
        "CREATE TABLE third_2 PARTITION OF third DEFAULT",
        "INSERT INTO u (a, w) SELECT n, n % 3 FROM generate_series(0, 49999) AS n",
        "ANALYZE u",
    )
    await schema.ensure(db.connector)
    return Ledger(db)


@pytest.mark.parametrize("columns", ["a int, PRIMARY KEY (a, w)", "a int"], ids=["with a key", "without"])
async def test_a_partitioned_table_is_walked_partition_by_partition(any_db: Database, columns: str) -> None:
    ledger = await partitions(any_db, columns.replace("PRIMARY KEY (a, w)", "UNIQUE (a, w)"))
    found = await ledger.plan(replace(FILL, where="u.v IS NULL"))
    assert [leg.relation for leg in found.legs] == [
        "public.second", "public.the first", "public.third_1", "public.third_2",
    ]  # fmt: skip
    result = await ledger.run(replace(FILL, where="u.v IS NULL"))
    await complete(any_db, result)
    assert result.rows == 50_000


async def test_in_mode_once_each_partition_has_its_highest_key(db: Database) -> None:
    ledger = await partitions(db, "a int, PRIMARY KEY (a, w)")
    once = replace(FILL, set="v = coalesce(v, 0) + 1", where="true", mode="once")
    backfill, scene = await ledger.backfill(once)
    scene.react = lambda told: scene.control.stop() if told.batches >= 20 else None
    assert (await backfill.run()).outcome is State.STOPPED
    await db.sql("CREATE TABLE later PARTITION OF u FOR VALUES FROM (50000) TO (60000)")
    await db.sql("INSERT INTO u (a) SELECT generate_series(50000, 50999)")
    result = await ledger.run(once)
    assert (result.outcome, result.rows) == (State.DONE, 50_000)
    assert await db.sql("SELECT v, count(*) FROM u GROUP BY v ORDER BY v") == [(1, 50_000), (None, 1_000)]


@pytest.mark.parametrize("columns", ["a int, PRIMARY KEY (a, w)", "a int"], ids=["with a key", "without"])
async def test_a_partition_may_go_and_another_come_meanwhile(db18: Database, columns: str) -> None:
    ledger = await partitions(db18, columns)
    backfill, scene = await ledger.backfill(FILL)
    scene.react = lambda told: scene.control.stop() if told.batches >= 5 else None
    assert (await backfill.run()).outcome is State.STOPPED
    await db18.sql(
        "DROP TABLE second",
        "CREATE TABLE between PARTITION OF u FOR VALUES FROM (20000) TO (30000)",
        "INSERT INTO u (a) SELECT generate_series(20000, 20999)",
    )
    await complete(db18, await ledger.run(FILL))


async def test_a_partition_that_comes_in_the_middle_is_not_overlooked(db18: Database) -> None:
    ledger = await partitions(db18, "a int")
    backfill, scene = await ledger.backfill(FILL)
    paused = asyncio.Event()

    def react(told: Any) -> None:
        if told.batches >= 5 and not paused.is_set():
            paused.set()
            scene.control.pause()

    scene.react = react
    running = asyncio.ensure_future(backfill.run())
    await paused.wait()
    await db18.sql(
        "CREATE TABLE later PARTITION OF u FOR VALUES FROM (50000) TO (60000)",
        "INSERT INTO u (a) SELECT generate_series(50000, 50999)",
    )
    scene.control.resume()
    result = await running
    assert result.outcome is State.INCOMPLETE
    assert "run it again" in result.note
    await complete(db18, await ledger.run(FILL))


async def test_partitions_of_others_are_named_where_there_is_no_key(db18: Database) -> None:
    await partitions(db18, "a int")
    role = f"filler_{db18.name}"
    await db18.sql(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT, UPDATE ON u TO {role}")
    try:
        with pytest.raises(Refused, match=f"GRANT SELECT, UPDATE ON public.second TO {role}"):
            await planned(ledger_connector(db18, role), FILL)
    finally:
        with contextlib.suppress(psycopg.Error):
            await db18.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def ledger_connector(db: Database, role: str) -> Any:
    """As *role*."""
    return type(db.connector)(db.dsn_as(role))


async def test_a_table_with_few_rows_to_fill_is_passed_over_once(db18: Database) -> None:
    ledger = await table(
        db18,
        "a int PRIMARY KEY",
        "INSERT INTO u (a, v) SELECT n, CASE WHEN n % 1000 > 0 THEN 1 END FROM generate_series(1, 100000) AS n",
    )
    result = await ledger.run(FILL)
    await complete(db18, result)
    assert result.rows == 100
    assert result.batches < 300
