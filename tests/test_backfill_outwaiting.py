"""A walk in stripes waits for an ANALYZE of its table, and not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest
from ledger import Ledger
from servers import Database

from dbwatch.backfill import outwaiting
from dbwatch.backfill.progress import State
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk
from dbwatch.journal import schema

FILL = Spec("u", "v = 1", "v IS NULL", batch_time_ms=20, workers=1, walk=Walk.STRIPES)
WAITS = "waits for the ANALYZE of public.u to end"
LEFT = "SELECT count(*) FROM u WHERE v IS NULL"


async def to_be_filled(db: Database) -> Ledger:
    await db.sql(
        "CREATE TABLE u (id int PRIMARY KEY, v int, pad text DEFAULT repeat('x', 60)) WITH (autovacuum_enabled = off)",
        "INSERT INTO u (id) SELECT generate_series(1, 200000)",
        "VACUUM ANALYZE u",
    )
    await schema.ensure(db.connector)
    return Ledger(db)


async def analyzing(db: Database, *settings: str) -> asyncio.Task[psycopg.AsyncCursor]:
    """An ANALYZE in a session with *settings*."""
    session = await db.foreign("dba")
    for setting in settings:
        await session.execute(f"SET {setting}")
    return asyncio.create_task(session.execute("ANALYZE u"))


async def analyzing_for_a_minute(db: Database) -> asyncio.Task[psycopg.AsyncCursor]:
    """One that computes, and holds nothing but its snapshot: one that rests as VACUUM does keeps a page locked."""
    await db.sql(
        "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.002); RETURN $1; END'",
        "CREATE STATISTICS u_slow ON slow(id) FROM u",
    )
    return await analyzing(db)


async def test_nothing_is_filled_while_an_analyze_of_the_table_runs(
    any_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nothing_is_filled_meanwhile(any_db, monkeypatch, workers=1)


async def test_nothing_is_filled_by_several_either(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await nothing_is_filled_meanwhile(db, monkeypatch, workers=2)


async def nothing_is_filled_meanwhile(db: Database, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(outwaiting, "MOST_S", 60.0)
    ledger = await to_be_filled(db)
    backfill, scene = await ledger.backfill(replace(FILL, workers=workers))
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda p: p.batches >= 2)
    analysis = await analyzing(db, "vacuum_cost_delay = 10", "vacuum_cost_limit = 15")
    await scene.until(lambda p: WAITS in p.reason)
    await asyncio.sleep(0.3)  # what was sent before ends
    seen: list[int] = []
    while not analysis.done():
        [(rows,)] = await db.sql("SELECT rows_done FROM dbwatch.backfill")
        seen.append(rows)
    result = await running
    assert (result.outcome, result.rows) == (State.DONE, 200_000)
    assert len(seen) > 2
    assert len(set(seen[:-1])) == 1, "the last one was asked for while it ended"
    assert await db.sql(LEFT) == [(0,)]


async def test_one_that_takes_long_is_not_waited_for_to_its_end(
    db18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outwaiting, "MOST_S", 0.3)
    ledger = await to_be_filled(db18)
    backfill, scene = await ledger.backfill(FILL)
    analysis = await analyzing_for_a_minute(db18)
    result = await backfill.run()
    assert (result.outcome, result.rows) == (State.DONE, 200_000)
    assert any(WAITS in reason for reason in scene.reasons(State.THROTTLED))
    assert not analysis.done()
    analysis.cancel()
    await asyncio.wait({analysis})


async def test_a_person_who_stops_it_does_not_wait_for_an_analyze(db18: Database) -> None:
    ledger = await to_be_filled(db18)
    backfill, scene = await ledger.backfill(FILL)
    scene.react = lambda p: scene.control.stop() if WAITS in p.reason else None
    analysis = await analyzing_for_a_minute(db18)
    async with asyncio.timeout(2.5):
        assert (await backfill.run()).outcome is State.STOPPED
    analysis.cancel()
    await asyncio.wait({analysis})


async def test_a_plain_walk_does_not_care(db18: Database) -> None:
    ledger = await to_be_filled(db18)
    backfill, scene = await ledger.backfill(replace(FILL, walk=Walk.KEYSET))
    analysis = await analyzing_for_a_minute(db18)
    assert (await backfill.run()).rows == 200_000
    assert not analysis.done()
    assert not any(WAITS in reason for reason in scene.reasons(State.THROTTLED))
    analysis.cancel()
    await asyncio.wait({analysis})
