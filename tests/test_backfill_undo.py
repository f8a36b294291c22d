"""What a backfill overwrote is brought back: exactly, in batches, through every interruption, and nobody else's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ledger import QUICK, Scene, planned
from servers import Database

from dbwatch.backfill import kept
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.progress import State
from dbwatch.backfill.restore import Restore, Returned
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.clock import SystemClock
from dbwatch.errors import Refused
from dbwatch.journal import schema
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connector, Role

ROWS = 6000
UNDO = Spec(table="users", set="phone = legacy", where="phone IS DISTINCT FROM legacy", batch_time_ms=10, undo=True)
"""Of three rows one holds NULL before, one another value, and one is right already."""
HASH = "SELECT sum(hashtextextended(t::text, 0))::text, count(*) FROM {} AS t"

BEFORE = "CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN 'was ' || i ELSE 'l' || i END"
WRONG = (
    f"SELECT count(*) FROM (SELECT id AS i, * FROM users WHERE {{where}}) AS u WHERE phone IS DISTINCT FROM {BEFORE}"  # noqa: S608  # ours
)


async def users(db: Database, key: str = "i", kind: str = "bigint", rows: int = ROWS) -> str:
    """The table, filled; its hash."""
    await db.sql(
        f"CREATE TABLE users (id {kind} PRIMARY KEY, legacy text, phone text, seen int DEFAULT 0)",
        f"INSERT INTO users SELECT {key}, 'l' || i, {BEFORE} FROM generate_series(1, {rows}) AS i",  # noqa: S608  # ours
        "ANALYZE users",
    )
    await schema.ensure(db.connector)
    return await hashed(db)


async def hashed(db: Database, table: str = "users") -> str:
    [(found, rows)] = await db.sql(HASH.format(table))
    return f"{found}/{rows}"


async def fill(db: Database, spec: Spec = UNDO, scene: Scene | None = None) -> Result:
    scene = scene or Scene()
    found = await planned(db.connector, spec)
    return await Backfill(
        db.connector, found, clock=SystemClock(), control=scene.control, progress=scene.see, thresholds=QUICK
    ).run()


async def images(db: Database) -> Kept:
    """Those of the only backfill."""
    session = await db.connector.open(Role.JOURNAL)
    try:
        [(id,)] = await db.sql("SELECT max(id) FROM dbwatch.backfill")
        found = await kept.of_backfill(session, id)
    finally:
        await session.close()
    assert found is not None
    return found


async def back(
    db: Database, scene: Scene | None = None, connector: Connector | None = None, fence: Fence | None = None
) -> Returned:
    scene = scene or Scene()
    return await Restore(
        connector or db.connector,
        await images(db),
        clock=SystemClock(),
        control=scene.control,
        progress=scene.see,
        fence=fence,
        thresholds=QUICK,
        batch_time_ms=10,
    ).run()


async def tables_of_images(db: Database) -> list[tuple[Any, ...]]:
    return await db.sql("SELECT relname FROM pg_class WHERE relname ~ '^before_' AND relkind = 'r'")


async def test_what_was_filled_whole_is_brought_back_exactly(any_db: Database) -> None:
    before = await users(any_db)
    result = await fill(any_db)
    assert (result.outcome, result.rows) == (State.DONE, 4000)
    assert await hashed(any_db) != before
    returned = await back(any_db)
    assert (returned.outcome, returned.rows, returned.changed, returned.missing) == (State.DONE, 4000, 0, 0)
    assert await hashed(any_db) == before
    assert "were dropped" in returned.note
    assert await tables_of_images(any_db) == []


async def test_what_was_stopped_in_the_middle_is_brought_back_exactly(db: Database) -> None:
    before = await users(db)
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.batches >= 3 else None
    result = await fill(db, scene=scene)
    assert result.outcome is State.STOPPED
    assert 0 < result.rows < 4000
    returned = await back(db)
    assert returned.rows == result.rows
    assert await hashed(db) == before


async def test_a_backfill_without_undo_cannot_be_brought_back(db18: Database) -> None:
    """What the other tests compare does differ, and nothing is written where nothing was asked for."""
    before = await users(db18)
    await fill(db18, replace(UNDO, undo=False))
    assert await hashed(db18) != before
    assert await tables_of_images(db18) == []
    assert await db18.sql("SELECT images FROM dbwatch.backfill") == [(None,)]


KEYS = {
    "uuid": ("id uuid PRIMARY KEY", "id", "md5(i::text)::uuid"),
    "composite": ("a int, b text, PRIMARY KEY (b, a)", "b, a", "i % 7, 'k ' || i"),
    "odd names": ('"%s {0}" timestamptz PRIMARY KEY', '"%s {0}"', "'2026-01-01'::timestamptz + i * interval '1 min'"),
    "collation": ('id text COLLATE "C" PRIMARY KEY', "id", "CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END || i"),
    "names of ours": ("key_1 int PRIMARY KEY, old_1 int", "key_1", "i, i"),
}


@pytest.mark.parametrize("which", KEYS)
async def test_keys_of_every_make_are_brought_back_by(db: Database, which: str) -> None:
    """Two columns are set, of types that know no equality, with NULLs on either side."""
    key, _, values = KEYS[which]
    await db.sql(
        f'CREATE TABLE "Odd %s" ({key}, new_1 json, "50%" numeric(9,3) DEFAULT 1.5)',
        f"""INSERT INTO "Odd %s" SELECT {values}, CASE WHEN i % 3 > 0 THEN '{{"was": 1}}'::json END, i
            FROM generate_series(1, 900) AS i""",  # noqa: S608  # ours
        'ANALYZE "Odd %s"',
    )
    await schema.ensure(db.connector)
    before = await hashed(db, '"Odd %s"')
    spec = Spec(
        table='"Odd %s"',
        set="""new_1 = CASE WHEN "50%" % 2 = 0 THEN '{}'::json END, "50%" = -"50%" """,
        where='"50%" > 0',
        undo=True,
        batch_time_ms=10,
    )
    result = await fill(db, spec)
    assert (result.outcome, result.rows) == (State.DONE, 900)
    assert (await back(db)).rows == 900
    assert await hashed(db, '"Odd %s"') == before


async def test_the_statement_on_paper_brings_back_the_same(db: Database) -> None:
    before = await users(db)
    await fill(db)
    await db.sql("UPDATE users SET phone = 'theirs' WHERE id = 7")
    statement = (await images(db)).kept_in.by_hand()
    await db.sql(statement, statement)
    assert await db.sql("SELECT phone FROM users WHERE id = 7") == [("theirs",)]
    returned = await back(db)  # what is as it was is not called changed by others
    assert (returned.rows, returned.changed, returned.missing) == (3999, 1, 0)
    await db.sql("UPDATE users SET phone = 'was 7' WHERE id = 7")
    assert await hashed(db) == before


async def test_what_others_wrote_since_stays_is_counted_and_named(db: Database) -> None:
    await users(db)
    await fill(db)
    await db.sql("UPDATE users SET phone = 'theirs' WHERE id <= 30")  # 20 of them have images
    await db.sql("UPDATE users SET seen = 1 WHERE id BETWEEN 31 AND 60")  # not the column that was filled
    await db.sql("DELETE FROM users WHERE id BETWEEN 61 AND 90")  # 20 of them too
    returned = await back(db)
    assert (returned.rows, returned.changed, returned.missing) == (3960, 20, 20)
    assert "20 rows changed by others since, left as they are; 20 rows gone since; what is left stays in" in str(
        returned
    )
    assert await db.sql("SELECT count(*) FROM users WHERE phone = 'theirs'") == [(30,)]
    assert await db.sql(WRONG.format(where="id > 30")) == [(0,)]
    assert await tables_of_images(db) == [("before_1",)]
    assert await db.sql("SELECT count(*) FROM dbwatch.before_1") == [(40,)]


async def test_what_others_write_while_it_fills_and_goes_back_survives(db: Database) -> None:
    """The application writes all the while, before and behind the cursors; its last word on each row stands."""
    await users(db, rows=12_000)
    await db.sql("CREATE TABLE said (id bigint PRIMARY KEY, phone text)")
    app = await db.foreign("app")
    over = asyncio.Event()
    say = """
        WITH s AS (INSERT INTO said SELECT DISTINCT (random() * 11999)::int + 1, 'app ' || {n}
                   FROM generate_series(1, 40)
                   ON CONFLICT (id) DO UPDATE SET phone = excluded.phone RETURNING id, phone)
        UPDATE users AS u SET phone = s.phone FROM (SELECT * FROM s ORDER BY id) AS s WHERE u.id = s.id
    """

    async def talk() -> None:
        n = 0
        while not over.is_set():
            n += 1
            try:
                await app.execute(say.format(n=n).encode())
            except psycopg.errors.DeadlockDetected:
                continue

    talking = asyncio.create_task(talk())
    scene = Scene()
    scene.react = lambda p: scene.control.stop() if p.rows_done > 5000 else None
    await fill(db, scene=scene)
    returned = await back(db)
    over.set()
    await talking
    # A word that we overwrote while we filled is brought back: it stood before our last write to the row.
    left = await db.sql("SELECT u.id FROM users AS u JOIN said AS s USING (id) WHERE u.phone IS DISTINCT FROM s.phone")
    assert left == []
    assert await db.sql(WRONG.format(where="id NOT IN (SELECT id FROM said)")) == [(0,)]
    assert returned.rows > 0  # how many the application left alone is a matter of speed
    assert returned.changed > 0


async def test_who_may_only_pause_a_backfill_may_not_read_what_it_overwrites(db18: Database) -> None:
    await users(db18)
    pauses, fills = f"pauses_{db18.name}", f"fills_{db18.name}"
    await schema.ensure(db18.connector)
    await db18.sql(
        f"CREATE ROLE {pauses}",
        f"CREATE ROLE {fills}",
        f"GRANT SELECT, UPDATE ON dbwatch.backfill TO {pauses}",
        f"GRANT SELECT, INSERT, UPDATE ON dbwatch.backfill TO {fills}",
    )
    try:
        await fill(db18)
        asked = "SELECT has_table_privilege('{}', 'dbwatch.before_1', 'SELECT, INSERT, UPDATE, DELETE')"
        assert await db18.sql(asked.format(pauses)) == [(False,)]
        assert await db18.sql(asked.format(fills)) == [(True,)]
    finally:
        for role in (pauses, fills):
            await db18.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_what_a_trigger_changed_again_on_the_way_back_keeps_its_image(db: Database) -> None:
    await users(db)
    await fill(db)
    await db.sql(
        "CREATE FUNCTION shouts() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF NEW.id <= 30 THEN NEW.phone := upper(NEW.phone); END IF; RETURN NEW; END'",
        "CREATE TRIGGER shouts BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION shouts()",
    )
    returned = await back(db)  # of the first thirty rows ten held NULL, which stays NULL, and ten are shouted
    assert (returned.rows, returned.changed, returned.missing) == (3990, 10, 0)
    assert await db.sql(WRONG.format(where="id > 30")) == [(0,)]
    held = await db.sql("SELECT key_1, old_1 FROM dbwatch.before_1 ORDER BY 1")
    assert held == [(i, f"was {i}") for i in range(1, 31, 3)]


async def test_of_several_columns_each_keeps_what_it_held_first(db: Database) -> None:
    """The application changes one of them behind the cursor; the other's first image stays."""
    await db.sql(
        "CREATE TABLE users (id int PRIMARY KEY, a text, b text)",
        "INSERT INTO users SELECT i, 'a ' || i, 'b ' || i FROM generate_series(1, 3000) AS i",
    )
    await schema.ensure(db.connector)
    scene = Scene()

    def write(told: object) -> None:
        if scene.told[-1].batches >= 1:
            scene.react = lambda _: None
            with psycopg.connect(db.dsn, autocommit=True) as connection:
                connection.execute("UPDATE users SET a = 'theirs' WHERE id = 1 AND b = 'B'")

    scene.react = write
    spec = replace(UNDO, set="a = 'A', b = 'B'", where="(a, b) IS DISTINCT FROM ('A', 'B')", walk=Walk.KEYSET)
    result = await fill(db, spec, scene)
    assert (result.outcome, result.rows) == (State.DONE, 3001), "the first row was filled twice"
    await back(db)
    assert await db.sql("SELECT a, b FROM users WHERE id < 3 ORDER BY id") == [("theirs", "b 1"), ("a 2", "b 2")]


async def test_nothing_is_brought_back_while_another_run_fills_it(db18: Database) -> None:
    await users(db18)
    await fill(db18)
    found = await images(db18)
    await db18.sql("UPDATE users SET phone = 'new' WHERE id > 5000")
    scene = Scene()
    scene.react = lambda told: scene.control.pause() if told.batches == 1 else None
    plan = await planned(db18.connector, replace(UNDO, undo=False))
    filling = Backfill(db18.connector, plan, clock=SystemClock(), control=scene.control, progress=scene.see, again=True)
    running = asyncio.create_task(filling.run())
    await scene.until(lambda told: told.state is State.PAUSED)
    with pytest.raises(Refused, match="is at work already"):
        await Restore(db18.connector, found, clock=SystemClock()).run()
    scene.control.resume()
    assert (await running).outcome is State.DONE


async def test_a_partitioned_table_is_walked_by_keys_where_undo_is_asked_for(db18: Database) -> None:
    await db18.sql(
        "CREATE TABLE users (id int PRIMARY KEY, legacy text, phone text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (30000)",
        "CREATE TABLE high PARTITION OF users FOR VALUES FROM (30000) TO (60001)",
        "INSERT INTO users SELECT i, 'l' || i FROM generate_series(1, 60000) AS i",
        "ANALYZE users",
    )
    await schema.ensure(db18.connector)
    assert not (await planned(db18.connector, UNDO)).by_pages
    scene = Scene()
    result = await fill(db18, replace(UNDO, batch_time_ms=100), scene)
    assert (result.outcome, result.rows) == (State.DONE, 60_000)
    assert max(told.fraction for told in scene.told if not told.checking and not told.state.ended) > 0.5
