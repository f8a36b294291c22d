"""The embedded server: starts on its own, obeys, and leaves nothing behind."""

from __future__ import annotations

from servers import Database, OwnServers


async def test_every_major_gives_a_new_empty_database(any_db: Database) -> None:
    [(version, statements)] = await any_db.sql(
        "CREATE EXTENSION pg_stat_statements",
        "SELECT current_setting('server_version_num')::int / 10000, count(*) FROM pg_stat_statements",
    )
    assert version == any_db.major
    assert statements > 0


async def test_a_standby_follows(own_server: OwnServers) -> None:
    primary = await own_server(15)
    standby = await own_server.standby(primary)
    import psycopg

    async with await psycopg.AsyncConnection.connect(standby.dsn) as c:
        print(await (await c.execute("select pg_is_in_recovery()")).fetchall())
