"""A backfill in mode once goes on as it was begun, whoever goes on with it: by its partitions, or as one table."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from ledger import Ledger, Scene, planned
from servers import Database
from test_backfill_pages import FILL, partitions

from dbwatch.backfill.progress import State
from dbwatch.backfill.run import Backfill
from dbwatch.backfill.spec import Spec
from dbwatch.clock import SystemClock
from dbwatch.errors import Refused
from dbwatch.postgres.session import Connector

ONCE = replace(FILL, set="v = coalesce(v, 0) + 1", where="true", mode="once")
TIMES = "SELECT coalesce(v, 0), count(*) FROM u GROUP BY 1 ORDER BY 1"


async def begun(db: Database, spec: Spec = ONCE) -> Ledger:
    """A partitioned table u of 50,000 rows, some of them set."""
    ledger = await partitions(db, "a int, PRIMARY KEY (a, w)")
    backfill, scene = await ledger.backfill(spec)
    scene.react = lambda told: scene.control.stop() if told.batches >= 20 else None
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
        scene.react = lambda told: scene.control.stop() if told.batches >= 20 else None
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
