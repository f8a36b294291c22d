"""For how long a backfill waits for a server, and what of that a pause is."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ledger import ONCE, QUICK, Ledger
from pooler import pooler
from servers import Database, OwnServers

from dbwatch.backfill import worker
from dbwatch.backfill.progress import State
from dbwatch.errors import DbwatchError
from dbwatch.postgres.session import Connector


async def test_a_server_that_stays_away_is_given_up(own_server: OwnServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE_S", 3.0)
    server = await own_server(18)
    ledger = await Ledger.make(await own_server.database(server))
    backfill, scene = await ledger.backfill(thresholds=QUICK)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda told: told.batches >= 2)
    await server.stop()
    async with asyncio.timeout(20):
        with pytest.raises(DbwatchError, match="gave up after") as given_up:
            await running
    assert "started it again" in str(given_up.value) or "start it again" in str(given_up.value)
    assert scene.told[-1].state is State.FAILED


async def test_what_was_before_a_pause_does_not_count(db18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch that takes too long, a pause, and one more: that is no server that was too slow all the while."""
    monkeypatch.setattr(worker, "PATIENCE_S", 1.0)
    ledger = await Ledger.make(db18)
    await db18.sql(
        "CREATE TABLE slow (n int)",
        "INSERT INTO slow VALUES (1)",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF EXISTS (SELECT FROM slow) THEN PERFORM pg_sleep(60); END IF; RETURN NULL; END'",
        "CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    )
    backfill, scene = await ledger.backfill(replace(ONCE, statement_timeout_ms=300), thresholds=QUICK)
    running = asyncio.create_task(backfill.run())
    await scene.until(lambda told: "too long" in told.reason or "timeout" in told.reason)
    scene.control.pause()
    await scene.until(lambda told: told.state is State.PAUSED)
    await asyncio.sleep(1.5)
    scene.control.resume()
    await scene.until(lambda told: told.state is State.THROTTLED)
    await db18.sql("TRUNCATE slow")
    assert (await running).outcome is State.DONE
    assert await ledger.violations() == []


async def test_a_failover_under_a_poolers_connection_is_a_lost_connection(own_server: OwnServers) -> None:
    """The pooler leads a connection to what is a standby now: it refuses the batch, and is left for the primary."""
    primary = await own_server(18)
    database = await own_server.database(primary)
    ledger = await Ledger.make(database)
    standby = await own_server.standby(primary)
    async with pooler(database.dsn) as way:
        ledger.connector = Connector(way.dsn)
        backfill, scene = await ledger.backfill(thresholds=QUICK)
        running = asyncio.create_task(backfill.run())
        await scene.until(lambda told: told.batches >= 2)
        await way.lead_to(standby.dsn)
        await scene.until(lambda told: told.state is State.THROTTLED and "standby" in told.reason)
        await way.lead_to(primary.dsn)
        result = await running
    assert (result.outcome, result.rows) == (State.DONE, 3000)
    assert await ledger.violations() == []
