"""A session that is kept: opened early, handed out again and again, opened anew only after it was lost."""

from __future__ import annotations

import asyncio

from dbwatch.postgres.session import Connector, Role, Session


class Kept:
    """One session in a role, for as long as its owner lives."""

    def __init__(self, connector: Connector, role: Role) -> None:
        self._connector = connector
        self._role = role
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def session(self, *, within: float = 3.0) -> Session:
        """The session; opened anew where it was lost. Raises CannotConnect."""
        async with self._opening:
            if self._session is None or not self._session.alive:
                self._session = await self._connector.open(self._role, within=within)
            return self._session

    async def close(self) -> None:
        """Ends the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None
