"""A walk in stripes: every key once, whatever the key, and as often as it is cut off; and when it is taken at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from ledger import ONCE, Ledger, planned
from servers import Database

from dbwatch.backfill.cursor import Cursor
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.journal import schema

STRIPED = replace(ONCE, walk=Walk.STRIPES)

MANY = "CREATE VIEW many AS SELECT generate_series(1, 30000) AS n"
KEYS = {
    "a sequence": ("id bigint PRIMARY KEY", "id", "SELECT n FROM many"),
    "every eighth number": ("id int PRIMARY KEY", "id", "SELECT 8 * n FROM many"),
    "smallest numbers": ("id smallint PRIMARY KEY", "id", "SELECT n FROM generate_series(-32768, -20000) AS n"),
    "numeric": ("id numeric PRIMARY KEY", "id", "SELECT n + 0.50 FROM many"),
    "uuid": ("id uuid PRIMARY KEY", "id", "SELECT md5(n::text)::uuid FROM many"),
    "text": ('id text PRIMARY KEY', "id", "SELECT 'ä%s' || n FROM many"),
    "timestamps": ("id timestamptz PRIMARY KEY", "id", "SELECT to_timestamp(n) FROM many"),
    "every twenty-third number": ("id int PRIMARY KEY", "id", "SELECT 23 * n FROM many"),
    "two columns alike": ("a int, b int, PRIMARY KEY (a, b)", "a, b", "SELECT n, n FROM many"),
    "few and many": ("a text, b date, PRIMARY KEY (a, b)", "a, b", "SELECT n % 7, date '2000-01-01' + n FROM many"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
async def test_every_key_is_set_once(db18: Database, kind: str) -> None:
    key, columns, rows = KEYS[kind]
    await db18.sql(MANY)
    ledger = await Ledger.make(db18, rows, key=key, columns=columns)
    total = (await db18.sql("SELECT count(*) FROM t"))[0][0]
    result = await ledger.run(STRIPED)
    assert (result.outcome, result.rows) == (State.DONE, total)
    assert await ledger.violations() == []


async def test_it_goes_on_in_the_middle_of_a_window(db: Database) -> None:
    """Cut off again and again; each time the pace begins anew."""
    ledger = await Ledger.make(db, "SELECT generate_series(1, 40000)")
    stood: Counter[str] = Counter()
    for cut in range(60):
        backfill, scene = await ledger.backfill(STRIPED)
        scene.react = lambda _, scene=scene, told=2 + cut % 5: scene.control.stop() if len(scene.told) > told else None
        if (await backfill.run()).outcome is State.DONE:
            break
        [(cursor,)] = await db.sql("SELECT cursor FROM dbwatch.backfill")
        window = Cursor.from_text(cursor).window
        stood["between windows" if window is None else "in a stripe" if window.at else "between stripes"] += 1
    assert await ledger.violations() == []
    assert stood["between stripes"]
    assert (await ledger.run(STRIPED)).already


async def test_a_stripe_is_split_where_the_pace_slows_in_the_middle_of_a_window(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 20000)")
    backfill, scene = await ledger.backfill(STRIPED)

    def react(progress: BackfillProgress) -> None:
        if progress.batches == 2:
            for _ in range(4):
                scene.control.slower()
        elif progress.batches >= 3:
            scene.control.stop()

    scene.react = react
    assert (await backfill.run()).outcome is State.STOPPED
    [(cursor,)] = await db18.sql("SELECT cursor FROM dbwatch.backfill")
    window = Cursor.from_text(cursor).window
    assert window is not None
    assert window.at is not None, "in the middle of a pass"
    assert (await ledger.run(STRIPED)).outcome is State.DONE
    assert await ledger.violations() == []


async def test_another_walk_goes_on_with_the_window_that_it_finds(db18: Database) -> None:
    ledger = await Ledger.make(db18, "SELECT generate_series(1, 40000)")
    backfill, scene = await ledger.backfill(STRIPED)
    scene.react = lambda p: scene.control.stop() if p.batches >= 3 else None
    assert (await backfill.run()).outcome is State.STOPPED
    assert (await ledger.run(replace(ONCE, walk=Walk.KEYSET))).outcome is State.DONE
    assert await ledger.violations() == []


async def test_rows_with_before_images_come_back_from_stripes(db: Database) -> None:
    ledger = await Ledger.make(db, "SELECT generate_series(1, 20000)")
    result = await ledger.run(replace(STRIPED, undo=True))
    assert result.outcome is State.DONE
    [(kept,)] = await db.sql("SELECT images FROM dbwatch.backfill")
    assert result.images == "dbwatch.before_1"
    assert kept
    assert await db.sql("SELECT count(*) FROM dbwatch.before_1 WHERE old_1 = 0 AND new_1 = 1") == [(20_000,)]


async def walk_of(db: Database, spec: Spec) -> str:
    return (await planned(db.connector, spec)).walk


async def test_the_catalogue_says_where_stripes_cannot_pay(db: Database) -> None:
    await db.sql(
        "CREATE TABLE u (id int PRIMARY KEY, v int, w int, x text)",
        "INSERT INTO u SELECT n, 0, 0, '' FROM generate_series(1, 80000) AS n",
        "CREATE TABLE scattered (id int PRIMARY KEY, v int)",
        "INSERT INTO scattered SELECT n, 0 FROM generate_series(1, 80000) AS n ORDER BY hashint4(n)",
        "CREATE TABLE few (id int PRIMARY KEY, v int)",
        "ANALYZE u", "ANALYZE scattered",
    )  # fmt: skip
    fill = replace(ONCE, table="u", set="v = 1")
    assert "both are timed" in await walk_of(db, fill)
    assert "does not follow the heap" in await walk_of(db, replace(fill, table="scattered"))
    assert "too few" in await walk_of(db, replace(fill, table="few"))
    assert await walk_of(db, replace(fill, walk=Walk.STRIPES)) == "stripes, as it was asked for"
    for index in (
        "(v)", "(w) INCLUDE (v)", "((v + 1))", "(w) WHERE v IS NULL", "(x) WHERE (v + w) > 0",
    ):  # fmt: skip
        await db.sql(f"CREATE INDEX i ON u {index}")
        assert "SET changes what i holds" in await walk_of(db, fill), index
        assert "both are timed" in await walk_of(db, replace(fill, set="x = 'a'")) or "(x)" in index, index
        await db.sql("DROP INDEX i")
    await db.sql("ALTER TABLE u ADD UNIQUE (v, id)")
    assert "u_v_id_key" in await walk_of(db, fill)


async def test_both_are_timed_and_where_pages_cannot_be_pruned_stripes_are_left(db18: Database) -> None:
    await db18.sql(
        "CREATE TABLE u (id int PRIMARY KEY, v int, pad text DEFAULT repeat('x', 60))",
        "INSERT INTO u (id) SELECT generate_series(1, 200000)",
        "ANALYZE u",
    )
    ledger = Ledger(db18)
    await schema.ensure(db18.connector)
    spec = Spec("u", "v = 1", "v IS NULL")
    backfill, scene = await ledger.backfill(spec)
    assert (await backfill.run()).pending == 0
    walks = Counter(p.walk for p in scene.told if p.state is State.RUNNING)
    assert set(walks) == {Walk.STRIPES, Walk.PAGES}
    assert max(p.hot for p in scene.told if p.hot is not None) > 0.6

    holder = await db18.foreign("old snapshot", autocommit=False)
    await holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await holder.execute("SELECT count(*) FROM u WHERE id < 0")
    held, scene = await ledger.backfill(Spec("u", "v = 2", "v = 1"))
    assert (await held.run()).pending == 0
    walks = Counter(p.walk for p in scene.told if p.state is State.RUNNING)
    assert walks[Walk.PAGES] > walks[Walk.STRIPES]
