"""A walk by pages: tables without a key, rows with NULL in theirs, partitions; nothing is left, whoever moves rows."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import Ledger, planned
from servers import Database, turns

from dbwatch.backfill import final, quarantine, retrying
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


@pytest.mark.parametrize(("any_db", "walk"), turns(Walk.AUTO, Walk.STRIPES, Walk.PAGES), indirect=["any_db"])
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


INDEXED = "CREATE INDEX ON u (v)"
"""With it stripes cannot pay, and the table is walked by keys."""


@pytest.mark.parametrize("rows", [30, 20_000])
async def test_walked_by_keys_rows_with_null_in_theirs_are_no_end_of_the_keys(db: Database, rows: int) -> None:
    ledger = await table(
        db,
        "a int UNIQUE",
        f"INSERT INTO u (a) SELECT CASE WHEN n % 3 > 0 THEN n END FROM generate_series(1, {rows}) AS n",  # noqa: S608
        INDEXED,
        "ALTER TABLE u ADD CHECK (a <> 25 OR v IS NULL)",
    )
    assert not (await ledger.plan(FILL)).by_pages
    result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.quarantined, result.pending) == (State.DONE, rows - 1, 1, 1)
    assert await db.sql("SELECT key FROM dbwatch.quarantine") == [('["25"]',)]
    assert await db.sql(LEFT) == [(1,)]


@pytest.mark.parametrize("indexed", [True, False], ids=["by keys", "by pages"])
async def test_a_row_with_null_in_a_part_of_its_key_is_met_once(db: Database, indexed: bool) -> None:
    ledger = await table(
        db,
        "a int, b int, UNIQUE (a, b)",
        "INSERT INTO u (a, b) SELECT n % 50, CASE WHEN n % 3 > 0 THEN n END FROM generate_series(1, 9000) AS n",
        *([INDEXED] if indexed else []),
        "ALTER TABLE u ADD CHECK (a <> 7 OR b IS NOT NULL OR v IS NULL)",
    )
    bad = 9000 // 150
    result = await ledger.run(FILL)
    assert (result.outcome, result.quarantined, result.pending) == (State.DONE, bad, bad)
    assert await db.sql(LEFT) == [(bad,)]
    await db.sql("ALTER TABLE u DROP CONSTRAINT u_check")
    assert (await retrying.retry(db.connector, result.id)).filled == bad
    assert await db.sql(LEFT) == [(0,)]


@pytest.mark.parametrize("changes", [{"mode": "once"}, {"undo": True}, {"walk": Walk.KEYSET}])
async def test_what_needs_a_key_is_refused_without(db18: Database, changes: dict[str, Any]) -> None:
    ledger = await table(db18, "a int UNIQUE")
    for ddl in ("SELECT", "ALTER TABLE u DROP CONSTRAINT u_a_key"):
        await db18.sql(ddl)
        with pytest.raises(Refused, match="in mode pending, without --undo and --walk keyset, it needs none"):
            await ledger.plan(replace(FILL, **changes))


KEYLESS = {
    "no key": ("a int", "INSERT INTO u (a) SELECT generate_series(1, 5000)", ()),
    "NULL in the key": ("a int, k int UNIQUE", "INSERT INTO u (a, k) SELECT n, CASE WHEN n % 3 > 0 THEN n END"
                        " FROM generate_series(1, 5000) AS n", ()),
    "partitions": ("a int, p int DEFAULT 1", "INSERT INTO u (a, p) SELECT n, n % 2 FROM generate_series(1, 5000) AS n",
                   ("CREATE TABLE u0 PARTITION OF u FOR VALUES IN (0)",
                    "CREATE TABLE u1 PARTITION OF u FOR VALUES IN (1)")),
}  # fmt: skip
BAD = [3, 1200, 1202, 4320]


async def poisoned(db: Database, how: str) -> Ledger:
    """A table u whose rows BAD, without a key, refuse their value."""
    columns, rows, parts = KEYLESS[how]
    await db.sql(
        f"CREATE TABLE u ({columns}, v int, w int DEFAULT 1){' PARTITION BY LIST (p)' if parts else ''}", *parts, rows
    )
    await db.sql(f"ALTER TABLE u ADD CHECK (a <> ALL('{{{', '.join(map(str, BAD))}}}') OR v IS NULL)")
    await schema.ensure(db.connector)
    return Ledger(db)


@pytest.mark.parametrize(("any_db", "how"), turns(*KEYLESS), indirect=["any_db"])
async def test_a_poison_row_without_a_key_is_set_aside_under_its_version(any_db: Database, how: str) -> None:
    ledger = await poisoned(any_db, how)
    result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.quarantined, result.pending) == (State.DONE, 4996, 4, 4)
    assert "(23514: 4)" in result.note
    assert await any_db.sql("SELECT a FROM u WHERE v IS NULL ORDER BY a") == [(a,) for a in BAD]
    named = await any_db.sql(
        "SELECT u.a FROM u JOIN (SELECT key::json AS held FROM dbwatch.quarantine) AS q"
        " ON (u.tableoid::text, u.ctid::text, u.xmin::text)"
        " = (held ->> 'tableoid', held ->> 'ctid', held ->> 'xmin') ORDER BY 1"
    )
    keyed = {1202} if how == "NULL in the key" else set()
    assert named == [(a,) for a in BAD if a not in keyed]
    assert (await ledger.run(FILL)).already
    await any_db.sql("ALTER TABLE u DROP CONSTRAINT u_check")
    retried = await retrying.retry(any_db.connector, result.id)
    assert (retried.filled, retried.healed, retried.left) == (4, 0, ())
    assert await any_db.sql(LEFT, "SELECT count(*) FROM dbwatch.quarantine") == [(0,)]
    assert await any_db.sql(LEFT) == [(0,)]


async def test_a_row_without_a_key_that_was_mended_is_found_though_its_version_is_gone(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    result = await ledger.run(FILL)
    await db18.sql("UPDATE u SET a = 7777 WHERE a = 3", "DELETE FROM u WHERE a = 1200")
    [(key,)] = await db18.sql("SELECT key FROM dbwatch.quarantine ORDER BY length(key), key LIMIT 1")
    one = await retrying.retry(db18.connector, result.id, quarantine.canonical(key.replace(',"', ', "')))
    assert (one.filled, one.healed, one.left) == (1, 0, ()), "the first in the heap is the one that was mended"
    assert await db18.sql("SELECT v FROM u WHERE a = 7777") == [(1,)]
    rest = await retrying.retry(db18.connector, result.id)
    assert (rest.filled, rest.healed, [poison.sqlstate for poison in rest.left]) == (0, 1, ["23514", "23514"])
    assert await db18.sql("SELECT count(*) FROM dbwatch.quarantine") == [(2,)] == await db18.sql(LEFT)


async def test_a_row_without_a_key_that_was_touched_but_not_mended_stays_in_quarantine(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    result = await ledger.run(FILL)
    before = await db18.sql("SELECT key FROM dbwatch.quarantine")
    await db18.sql("UPDATE u SET a = a WHERE a = ANY('{3, 1200}')")
    retried = await retrying.retry(db18.connector, result.id)
    assert (retried.filled, retried.healed, len(retried.left)) == (0, 0, 4)
    after = await db18.sql("SELECT key FROM dbwatch.quarantine")
    assert (len(after), len({*after} & {*before})) == (4, 2), "those touched are held under their new versions"
    assert await db18.sql(LEFT) == [(4,)]


async def test_a_place_that_another_row_took_is_no_row_in_quarantine(db18: Database) -> None:
    """Where a version lay another one may come to lie, which was never tried."""
    await db18.sql("CREATE TABLE u (a int CHECK (a <> 50 OR v IS NULL), v int, w int DEFAULT 1)")
    await db18.sql("INSERT INTO u (a) SELECT generate_series(1, 100)")
    await schema.ensure(db18.connector)
    result = await Ledger(db18).run(FILL)
    assert result.quarantined == 1
    [(place,)] = await db18.sql("SELECT ctid::text FROM u WHERE v IS NULL")
    await db18.sql("DELETE FROM u", "VACUUM (TRUNCATE off) u")
    rows = 0
    while await db18.sql(f"SELECT 1 FROM u WHERE ctid = '{place}'") == []:  # noqa: S608  # ours
        await db18.sql("INSERT INTO u (a) SELECT generate_series(9001, 9050)")
        rows += 50
        assert rows < 900
    retried = await retrying.retry(db18.connector, result.id)
    assert (retried.filled, retried.healed, retried.left) == (rows, 0, ())
    assert await db18.sql(LEFT) == [(0,)] == await db18.sql("SELECT count(*) FROM dbwatch.quarantine")


async def test_the_budget_counts_rows_without_a_key_too(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    with pytest.raises(DbwatchError, match="more rows that cannot take their value than the 3"):
        await ledger.run(replace(FILL, quarantine=3))
    await db18.sql("DELETE FROM u WHERE a = ANY('{3, 1200, 1202, 4320}')")
    result = await ledger.run(replace(FILL, quarantine=3))
    assert (result.outcome, result.pending, await db18.sql(LEFT)) == (State.DONE, 0, [(0,)])


async def test_without_a_budget_the_first_poison_row_without_a_key_ends_it(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    with pytest.raises(DbwatchError, match="violates check constraint"):
        await ledger.run(replace(FILL, quarantine=0))
    await db18.sql("ALTER TABLE u DROP CONSTRAINT u_check")
    await complete(db18, await ledger.run(replace(FILL, quarantine=0)))


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
    assert (await retrying.retry(db18.connector, result.id)).filled == 3
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


@pytest.mark.parametrize(("any_db", "columns"), turns("a int, PRIMARY KEY (a, w)", "a int"), indirect=["any_db"])
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


async def test_a_row_without_a_key_that_was_mended_into_one_that_set_leaves_pending_is_not_called_healed(
    db18: Database,
) -> None:
    await db18.sql("CREATE TABLE u (a text, v int)", "INSERT INTO u SELECT generate_series(1, 3000)")
    await db18.sql("UPDATE u SET a = 'x' WHERE a = '77'")
    await schema.ensure(db18.connector)
    ledger = Ledger(db18)
    result = await ledger.run(replace(FILL, set="v = nullif(a, '')::int"))
    assert (result.outcome, result.quarantined, result.pending) == (State.DONE, 1, 1)
    await db18.sql("UPDATE u SET a = '' WHERE a = 'x'")
    retried = await retrying.retry(db18.connector, result.id)
    assert (retried.filled, retried.healed, len(retried.left)) == (0, 0, 1)
    assert "a row is pending elsewhere" in retried.left[0].message
    await db18.sql("UPDATE u SET a = '5' WHERE a = ''")
    assert (await retrying.retry(db18.connector, result.id)).filled == 1


async def test_what_was_changed_before_the_backfill_is_done_is_left_to_it(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    with pytest.raises(DbwatchError, match="more rows that cannot take their value than the 2"):
        await ledger.run(replace(FILL, quarantine=2))
    await db18.sql("UPDATE u SET a = -a WHERE a = ANY('{3, 1200, 1202}')")
    retried = await retrying.retry(db18.connector, 1)
    assert (retried.filled, retried.healed, retried.handed_back, retried.left) == (0, 0, 2, ())
    result = await ledger.run(replace(FILL, quarantine=2))
    assert (result.outcome, result.quarantined, result.pending) == (State.DONE, 1, 1)
    assert await db18.sql(LEFT) == [(1,)]


async def test_a_heap_with_hardly_a_row_on_a_page_is_hunted_through(db18: Database) -> None:
    ledger = await poisoned(db18, "no key")
    await db18.sql("UPDATE u SET w = 2", "DELETE FROM u WHERE a <> ALL('{3, 1202, 4320, 4321}')", "ANALYZE u")
    found = await ledger.plan(FILL)
    assert found.legs[0].pages.rows_each < 0.5
    async with asyncio.timeout(30):
        result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.quarantined) == (State.DONE, 1, 3)


async def test_few_rows_go_alone_for_one_that_cannot_take_its_value(db18: Database) -> None:
    ledger = await table(
        db18,
        "a int",
        "INSERT INTO u (a) SELECT generate_series(1, 40000)",
        "ALTER TABLE u ADD CHECK (a <> 20000 OR v IS NULL)",
    )
    result = await ledger.run(FILL)
    assert (result.outcome, result.rows, result.quarantined) == (State.DONE, 39_999, 1)
    assert result.batches < 800, "a page or two row by row, the others in batches again"
