"""The servers of a campaign: a primary, a standby where a run calls for one, and databases on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
from psycopg import sql
from servers import Database, Fleet, OwnServers, create_database, eventually

from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector

FORGETFUL = {
    "synchronous_commit": "off",
    "wal_writer_delay": "3s",
    "wal_writer_flush_after": "1GB",
    "wal_buffers": "16MB",
}
"""A COMMIT is answered before it lasts, so that a crash loses some that were answered: rows and cursor together."""

_CAUGHT_UP = "SELECT count(*) = 1 AND bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication"


class House:
    """A primary that may change."""

    def __init__(self, servers: OwnServers, primary: EmbeddedServer) -> None:
        self.primary = primary
        self.standby: EmbeddedServer | None = None
        self._servers = servers

    @classmethod
    @asynccontextmanager
    async def open(cls, major: int) -> AsyncIterator[House]:
        """A house for as long as the block lasts."""
        fleet = Fleet()
        servers = OwnServers(fleet)
        try:
            yield await cls.of(servers, major)
        finally:
            await servers.close()
            fleet.close()

    @classmethod
    async def of(cls, servers: OwnServers, major: int) -> House:
        """A house of *servers*, which end with those."""
        return cls(servers, await servers(major, settings=FORGETFUL))

    async def database(self) -> Database:
        """A new database."""
        return await create_database(self.primary)

    async def strike(self, database: Database) -> None:
        """The database goes, with whoever is in it."""
        await database.close()
        words = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name))
        async with await psycopg.AsyncConnection.connect(self.primary.dsn, autocommit=True) as connection:
            await connection.execute(words)

    async def follow(self) -> None:
        """Has a new standby that has caught up with the primary."""
        if self.standby is not None:  # of a run that was over before it was needed; the primary has crashed since
            await self.standby.remove()
        self.standby = await self._servers.standby(self.primary)
        async with await psycopg.AsyncConnection.connect(self.primary.dsn, autocommit=True) as connection:
            await connection.execute("CHECKPOINT")  # what was committed is written, and sent

        async def caught_up() -> bool:
            async with await psycopg.AsyncConnection.connect(self.primary.dsn, autocommit=True) as connection:
                return await (await connection.execute(_CAUGHT_UP)).fetchone() == (True,)

        await eventually(caught_up, within=30)

    async def fall_behind(self) -> None:
        """The standby receives nothing any more."""
        assert self.standby is not None
        async with await psycopg.AsyncConnection.connect(self.standby.dsn, autocommit=True) as replica:
            await replica.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await replica.execute("SELECT pg_reload_conf()")

    async def fail_over(self, database: Database) -> Database:
        """The primary dies, the standby is promoted; *database* as it is there."""
        dead, self.primary, self.standby = self.primary, self.standby or self.primary, None
        await database.close()
        await dead.kill9()
        async with await psycopg.AsyncConnection.connect(self.primary.dsn, autocommit=True) as replica:
            await replica.execute("SELECT pg_promote()")
            await replica.execute("ALTER SYSTEM RESET primary_conninfo")  # its own standby copies that file
        await dead.remove()
        dsn = self.primary.dsn_of(database.name)
        return replace(database, server=self.primary, dsn=dsn, connector=Connector(dsn))
