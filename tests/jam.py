"""Lock queues on a real server: a holder, a DDL that waits for it, and everyone behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from psycopg import AsyncConnection
from servers import Database

from dbwatch.monitor.locktree import LockNode, forest_of, walk
from dbwatch.monitor.poller import poll_once
from dbwatch.monitor.samples import Snapshot

WITHIN_S = 10.0


class Jam:
    """Sessions in a queue; `close` ends what they run, so that the test's connections can go."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._running: list[asyncio.Task[Any]] = []

    async def session(self, name: str) -> AsyncConnection[Any]:
        """A session of the application *name*."""
        return await self.db.foreign(name)

    async def holds(self, name: str, *statements: str) -> int:
        """A session idle in its transaction after *statements*; its pid."""
        connection = await self.session(name)
        for statement in ("BEGIN", *statements):
            await connection.execute(statement.encode())
        return connection.info.backend_pid

    async def waits(self, name: str, statement: str, *before: str) -> int:
        """A session whose *statement* waits for a lock by the time this returns; its pid."""
        connection = await self.session(name)
        for earlier in before:
            await connection.execute(earlier.encode())
        pid = connection.info.backend_pid
        self.run(connection.execute(statement.encode()))
        async with asyncio.timeout(WITHIN_S):
            while (pid,) not in await self.db.sql("SELECT pid FROM pg_locks WHERE NOT granted"):
                pass
        return pid

    def run(self, work: Awaitable[Any]) -> None:
        """Lets *work* go on beside the test; how it ends does not matter."""
        self._running.append(asyncio.ensure_future(work))

    async def close(self) -> None:
        """Closes all sessions and collects what they ran."""
        await self.db.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def nodes(db: Database) -> dict[int, LockNode]:
    """The forest of one poll, by pid."""
    return {node.pid: node for node in walk(forest_of(await poll_once(db.connector)))}


async def snapshot_as(db: Database, user: str) -> Snapshot:
    """One poll by another role."""
    return await poll_once(type(db.connector)(db.dsn_as(user)))
