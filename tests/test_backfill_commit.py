"""Whether a batch's COMMIT waits for the disk: only for the sake of others, or of a standby that has to have it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
from ledger import ONCE, Ledger, wait_for
from servers import Database, OwnServers

from dbwatch.backfill.progress import State
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.walk import Walk

SAID = (
    "CREATE TABLE said (commit text)",
    """
    CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO said VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$
    """,
    "CREATE TRIGGER say AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION say()",
)
HOW = "SELECT commit, count(*) FROM said GROUP BY 1 ORDER BY 1"
FILL = replace(ONCE, batch_time_ms=20)


async def waits(database: Database, spec: Spec = FILL, rows: int = 40_000) -> dict[str, int]:
    """How often the COMMITs of the batches waited as the server is configured, and how often they did not."""
    ledger = await Ledger.make(database, f"SELECT generate_series(1, {rows})")
    await database.sql(*SAID)
    assert (await ledger.run(spec)).outcome is State.DONE
    assert await ledger.violations() == []
    return dict(await database.sql(HOW))


async def test_alone_hardly_any_does(db: Database) -> None:
    said = await waits(db)
    assert said["off"] > said.get("on", 0)  # before the first look nobody knows who is there


async def test_among_others_the_last_one_of_each_message_does(db: Database) -> None:
    stop = asyncio.Event()

    async def application() -> None:
        shop = await db.foreign("shop")
        while not stop.is_set():
            await shop.execute("SELECT 1")
            await asyncio.sleep(0.01)

    working = asyncio.create_task(application())
    try:
        await wait_for(db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'shop')")
        plain = await waits(db, replace(FILL, walk=Walk.KEYSET))
    finally:
        stop.set()
        await working
    assert set(plain) == {"on"}


async def test_so_it_does_where_a_standby_is_synchronous(own_server: OwnServers) -> None:
    primary = await own_server(18)
    database = await own_server.database(primary)
    await own_server.standby(primary)
    await wait_for(database, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')")
    async with await psycopg.AsyncConnection.connect(primary.dsn, autocommit=True) as admin:
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await admin.execute("SELECT pg_reload_conf()")
    await wait_for(database, "SELECT current_setting('synchronous_standby_names') = '*'")
    assert set(await waits(database, replace(FILL, walk=Walk.KEYSET), 10_000)) == {"on"}
