"""Hears at once that somebody wrote into the journal: LISTEN on a connection that does nothing else."""

from __future__ import annotations

import asyncio

import psycopg

from dbwatch.errors import DbwatchError
from dbwatch.journal.ledger import CHANNEL
from dbwatch.postgres.session import Connection, Connector, Role, Session

AGAIN_S = 5.0
"""So long after it failed it is tried anew; until then the journal is read at its own pace, as without it."""


class Ears:
    """One listening connection. Losing it loses no event: hearing only makes reading prompt."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._session: Session | None = None
        self._deaf_until = 0.0

    async def wait(self, seconds: float) -> bool:
        """Waits until somebody writes, at most so long; whether it was heard. Raises nothing."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        if now() >= self._deaf_until:
            try:
                session = await self._listening(seconds)
                return await session.call(lambda c: _heard(c, max(0.0, until - now())), within=seconds + 1.0)
            except (DbwatchError, psycopg.Error):
                self._deaf_until = now() + AGAIN_S
        await asyncio.sleep(max(0.0, until - now()))
        return False

    async def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _listening(self, seconds: float) -> Session:
        if self._session is None or not self._session.alive:
            self._session = await self._connector.open(Role.CONTROL, within=max(1.0, seconds))
            await self._session.execute(f"LISTEN {CHANNEL}".encode(), within=2.0)
        return self._session


async def _heard(connection: Connection, seconds: float) -> bool:
    async for _ in connection.notifies(timeout=seconds, stop_after=1):
        return True
    return False
