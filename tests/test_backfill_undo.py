"""What a backfill overwrote is brought back: exactly, in batches, through every interruption, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from typing import Any

import pytest
from ledger import QUICK, Scene, planned, wait_for
from servers import Database

from dbwatch.backfill import kept
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.plan import Spec
from dbwatch.backfill.progress import State
from dbwatch.backfill.restore import Restore, Returned
from dbwatch.backfill.run import Backfill, Result
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector, Role

ROWS = 6000
UNDO = Spec(table="users", set="phone = legacy", where="phone IS DISTINCT FROM legacy", batch_time_ms=10, undo=True)
"""Of three rows one holds NULL before, one another value, and one is right already."""
HASH = "SELECT sum(hashtextextended(t::text, 0))::text, count(*) FROM {} AS t"

BEFORE = "CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN 'was ' || i ELSE 'l' || i END"


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


async def back(db: Database, scene: Scene | None = None) -> Returned:
    scene = scene or Scene()
    return await Restore(
        db.connector,
        await images(db),
        clock=SystemClock(),
        control=scene.control,
        progress=scene.see,
        thresholds=QUICK,
        batch_time_ms=10,
    ).run()


async def tables_of_images(db: Database) -> list[tuple[Any, ...]]:
    return await db.sql("SELECT relname FROM pg_class WHERE relname ~ '^before_' AND relkind = 'r'")


async def test_what_was_filled_whole_is_brought_back_exactly(db: Database) -> None:
    before = await users(db)
    result = await fill(db)
    assert (result.outcome, result.rows) == (State.DONE, 4000)
    assert await hashed(db) != before
    returned = await back(db)
    assert (returned.outcome, returned.rows, returned.changed, returned.missing) == (State.DONE, 4000, 0, 0)
    assert await hashed(db) == before
    assert "were dropped" in returned.note
    assert await tables_of_images(db) == []
