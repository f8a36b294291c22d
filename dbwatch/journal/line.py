"""The store's line to its journal: one session, used by one at a time, opened again where it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
from psycopg import sql

from dbwatch.errors import ConnectionLost, DbwatchError, ServerSilent
from dbwatch.journal.chain import Event
from dbwatch.journal.rows import read_events
from dbwatch.postgres.session import Connection, Connector, Role, Session


class Line:
    """The session, and whose turn it is."""

    def __init__(self, connector: Connector, window: UUID) -> None:
        self._connector = connector
        self._window = window
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        self._tag = ""

    @asynccontextmanager
    async def in_turn(self, within: float) -> AsyncIterator[None]:
        """One writer and reader at a time. Raises ServerSilent where the turn does not come within the deadline."""
        try:
            async with asyncio.timeout(within):
                await self._turn.acquire()
        except TimeoutError as error:
            raise ServerSilent(
                f"the journal was busy for {within:g} s", why="the server does not answer", next="it is tried again"
            ) from error
        try:
            yield
        finally:
            self._turn.release()

    async def session(self, within: float) -> Session:
        """The session, opened where there is none. Raises as `Connector.open` and `Session.call` do."""
        if self._session is None or not self._session.alive:
            self._session = await self._connector.open(Role.JOURNAL, within=within)
            await self._name(self._session)
        return self._session

    async def go_by(self, tag: str, within: float) -> None:
        """Has the server know the session by the *tag* of our right, from now on. Raises as `session` does."""
        self._tag = tag
        await self._name(await self.session(within))

    async def committed(
        self, work: Callable[[Connection], Awaitable[None]], written: Sequence[Event], within: float
    ) -> None:
        """Runs *work*; where the connection went while its transaction ended, looks whether what it put into *written*
        is there. Raises as `Session.call` does."""
        session = await self.session(within)
        try:
            await session.call(work, within=within)
        except (ConnectionLost, ServerSilent):
            if not written:
                raise
            try:
                session = await self.session(within)
                found = await read_events(session, self._window, written[-1].seq - 1, within=within)
            except (DbwatchError, psycopg.Error):
                found = []
            if not any(event.hash == written[-1].hash for event in found):
                raise

    async def close(self) -> None:
        """Ends the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _name(self, session: Session) -> None:
        if self._tag:
            name = f"dbwatch {Role.JOURNAL} {self._tag}"
            await session.execute(sql.SQL("SET application_name = {}").format(sql.Literal(name)))
