"""A backfill in mode once goes on as it was begun, whoever goes on with it, or not at all: only its cursor tells which
rows it has set, and a cursor means something for one table, one column and one key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from ledger import ONCE as PLAIN
from ledger import Ledger, Scene, planned
from servers import Database
from test_backfill_claim import WINDOW
from test_backfill_pages import FILL, partitions

from dbwatch.backfill.progress import State
from dbwatch.backfill.run import Backfill
from dbwatch.backfill.spec import Spec
from dbwatch.clock import SystemClock
from dbwatch.errors import Refused
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connector

ONCE = replace(FILL, set="v = coalesce(v, 0) + 1", where="true", mode="once", batch_time_ms=100)
TIMES = "SELECT coalesce(v, 0), count(*) FROM u GROUP BY 1 ORDER BY 1"


async def begun(db: Database, spec: Spec = ONCE) -> Ledger:
    """A partitioned table u of 50,000 rows, some of them set."""
    ledger = await partitions(db, "a int, PRIMARY KEY (a, w)")
    backfill, scene = await ledger.backfill(spec)
    scene.react = lambda told: scene.control.stop() if told.batches >= 5 else None
    result = await backfill.run()
    assert result.outcome is State.STOPPED
    assert 0 < result.rows < 50_000
    return ledger


@asynccontextmanager
async def filler(db: Database) -> AsyncIterator[Connector]:
    """A role that may fill the table, but none of its partitions by itself."""
    role = f"filler_{db.name}"
    await db.sql(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, UPDATE ON u TO {role}",
        f"GRANT USAGE ON SCHEMA dbwatch TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA dbwatch TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA dbwatch TO {role}",
        f"GRANT pg_monitor TO {role}",
    )
    try:
        yield Connector(db.dsn_as(role))
    finally:
        with contextlib.suppress(psycopg.Error):
            await db.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_what_was_begun_by_partitions_is_not_gone_on_with_as_one_table(db: Database) -> None:
    ledger = await begun(db)
    async with filler(db) as connector:
        plan = await planned(connector, ONCE)
        assert not plan.legs[0].partition
        with pytest.raises(Refused, match="was begun partition by partition"):
            await Backfill(connector, plan, clock=SystemClock()).run()
    assert (await ledger.run(ONCE)).outcome is State.DONE
    assert await db.sql(TIMES) == [(1, 50_000)]


async def test_what_was_begun_as_one_table_goes_on_as_one(db: Database) -> None:
    """Before-images are the whole table's; whoever goes on without asking for them walks as whoever asked."""
    ledger = await begun(db, replace(ONCE, undo=True))
    assert (await ledger.plan(ONCE)).legs[0].partition
    result = await ledger.run(ONCE)
    assert (result.outcome, result.rows) == (State.DONE, 50_000)
    assert await db.sql(TIMES) == [(1, 50_000)]
    assert await db.sql("SELECT count(*) FROM dbwatch.before_1") == [(50_000,)]


async def test_a_role_with_more_rights_goes_on_as_the_one_that_began(db: Database) -> None:
    ledger = await partitions(db, "a int, PRIMARY KEY (a, w)")
    async with filler(db) as connector:
        scene, plan = Scene(), await planned(connector, ONCE)
        backfill = Backfill(connector, plan, clock=SystemClock(), control=scene.control, progress=scene.see)
        scene.react = lambda told: scene.control.stop() if told.batches >= 5 else None
        assert (await backfill.run()).outcome is State.STOPPED
    result = await ledger.run(ONCE)
    assert (result.outcome, result.rows) == (State.DONE, 50_000)
    assert await db.sql(TIMES) == [(1, 50_000)]


async def test_a_partition_that_was_renamed_since_is_named(db18: Database) -> None:
    ledger = await begun(db18)
    await db18.sql('ALTER TABLE third_2 RENAME TO "a third"')
    with pytest.raises(Refused, match=r"partition public\.third_2 is called public\.a third now"):
        await ledger.run(ONCE)
    await db18.sql('ALTER TABLE "a third" RENAME TO third_2')
    assert (await ledger.run(ONCE)).outcome is State.DONE
    assert await db18.sql(TIMES) == [(1, 50_000)]


async def test_a_partition_that_went_and_one_that_came_are_none_that_was_renamed(db18: Database) -> None:
    ledger = await begun(db18)
    await db18.sql("DROP TABLE third_2", "CREATE TABLE third_3 PARTITION OF third FOR VALUES IN (2)")
    assert (await ledger.run(ONCE)).outcome is State.DONE
    assert [times for times, _ in await db18.sql(TIMES)] == [1]


async def stopped(db: Database, spec: Spec = PLAIN) -> Ledger:
    """The ledger's table, some rows of which are set."""
    ledger = await Ledger.make(db)
    await go_until(ledger, spec, 3)
    return ledger


async def go_until(ledger: Ledger, spec: Spec, batches: int) -> None:
    backfill, scene = await ledger.backfill(spec)
    scene.react = lambda told: scene.control.stop() if told.batches >= batches else None
    assert (await backfill.run()).outcome is State.STOPPED


async def test_by_another_key_it_is_not_begun_anew(db: Database) -> None:
    ledger = await stopped(db)
    await db.sql("ALTER TABLE t ADD COLUMN other bigint", "UPDATE t SET other = id", "ALTER TABLE t ADD UNIQUE (other)")
    await db.sql("ALTER TABLE t ALTER other SET NOT NULL")
    other = replace(PLAIN, key="other")
    with pytest.raises(Refused, match=r"begun by another key.*--key id"):
        await ledger.run(other)
    assert (await ledger.run()).rows == 3000
    assert await ledger.violations() == []


async def test_in_other_words_it_is_not_begun_anew_nor_done_again(db: Database) -> None:
    """What is typed again after a night has a blank more, and another case."""
    ledger = await stopped(db)
    other = replace(PLAIN, set='"v"  =  (V) + 1', where=" TRUE ")
    with pytest.raises(Refused, match=r"was begun in other words.*go on with it"):
        await ledger.run(other)
    assert (await ledger.run()).rows == 3000
    with pytest.raises(Refused, match=r"is done in other words.*--again"):
        await ledger.run(other)
    assert await ledger.violations() == []
    assert (await ledger.run(replace(PLAIN, where="id < 0"))).outcome is State.DONE, "which means something else"


async def test_two_by_two_keys_do_not_run_at_once(db18: Database) -> None:
    ledger = await Ledger.make(db18)
    await db18.sql("ALTER TABLE t ADD COLUMN other bigint GENERATED ALWAYS AS IDENTITY UNIQUE")
    first, seen = await ledger.backfill()
    seen.react = lambda told: seen.control.pause() if told.batches == 1 else None
    second, _ = await ledger.backfill(replace(PLAIN, key="other"))
    running = asyncio.create_task(first.run())
    await seen.until(lambda told: told.state is State.PAUSED)
    with pytest.raises(Refused, match="begun by another key"):
        await second.run()
    seen.control.resume()
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []


@pytest.mark.parametrize("where", ["true", " TRUE"])
async def test_a_column_that_was_made_anew_is_filled_from_the_beginning(db: Database, where: str) -> None:
    """As after an aborted window: its migration is gone with the column, and the next window adds it again."""
    ledger = await stopped(db)
    await db.sql("ALTER TABLE t DROP COLUMN v CASCADE", "ALTER TABLE t ADD COLUMN v int NOT NULL DEFAULT 0")
    await db.sql("INSERT INTO t (id) VALUES (7001)")
    result = await ledger.run(replace(PLAIN, where=where))
    assert (result.outcome, result.rows) == (State.DONE, 3001)
    assert await db.sql("SELECT v, count(*) FROM t GROUP BY v") == [(1, 3001)]
    assert (await ledger.run(replace(PLAIN, where=where))).already


async def test_another_table_of_that_name_is_not_gone_on_with(db18: Database) -> None:
    ledger = await stopped(db18)
    await db18.sql("ALTER TABLE t RENAME TO was", "CREATE TABLE t (LIKE was INCLUDING ALL)", "INSERT INTO t TABLE was")
    with pytest.raises(Refused, match="the table is another one than when backfill 1 began"):
        await ledger.run()
    result = await ledger.run(again=True)
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert (await ledger.run()).already


async def test_a_key_that_is_compared_otherwise_now_is_not_gone_on_with(db18: Database) -> None:
    ledger = await stopped(db18)
    await db18.sql("ALTER TABLE t ALTER id TYPE text")
    with pytest.raises(Refused, match="its key is compared otherwise than when backfill 1 began"):
        await ledger.run()
    await db18.sql("ALTER TABLE t ALTER id TYPE bigint USING id::bigint")
    assert (await ledger.run()).rows == 3000
    assert await ledger.violations() == []


async def test_what_a_window_goes_on_with_is_the_windows(db18: Database) -> None:
    """It is done; the process dies before the step is; the step that is run again does nothing twice."""
    ledger = await stopped(db18)
    window = uuid4()
    await db18.sql(WINDOW.format(window, 1))
    ours = {"fence": Fence(window, 1), "step_id": "fill"}
    assert (await ledger.run(**ours)).rows == 3000
    again = await ledger.run(**ours)
    assert (again.already, again.rows) == (True, 3000)
    assert await ledger.violations() == []
    assert await db18.sql("SELECT window_id, step_id FROM dbwatch.backfill") == [(window, "fill")]


async def test_a_second_step_that_does_the_same_looks_for_itself(db18: Database) -> None:
    """Stragglers after a deploy: the end of the first step says nothing of what was written since."""
    ledger = await Ledger.make(db18)
    window, pending = uuid4(), replace(PLAIN, where="v = 0", mode="pending")
    await db18.sql(WINDOW.format(window, 1))
    assert (await ledger.run(pending, fence=Fence(window, 1), step_id="fill")).rows == 3000
    await db18.sql("INSERT INTO t (id) VALUES (9001), (9003)")
    second = {"fence": Fence(window, 1), "step_id": "stragglers"}
    assert (await ledger.run(pending, **second)).rows == 2
    assert await db18.sql("SELECT v, count(*) FROM t GROUP BY v") == [(1, 3002)]
    assert (await ledger.run(pending, **second)).already
