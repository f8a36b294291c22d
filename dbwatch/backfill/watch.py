"""Looks at the server once a second while a backfill runs, on a connection of its own."""

from __future__ import annotations

import psycopg

from dbwatch.backfill.health import Reading, Replica, Thresholds, Waiter
from dbwatch.clock import Clock
from dbwatch.errors import CannotConnect, ConnectionLost, ServerSilent
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line

ANSWER_S = 2.0
"""How long a look may take before its connection is closed."""


class Watch:
    """Keeps the newest reading. `run` is a task of whoever made it; nothing but its cancellation ends it."""

    def __init__(self, connector: Connector, clock: Clock, thresholds: Thresholds) -> None:
        self.reading: Reading | None = None
        """The newest one; its age tells whether it is worth anything."""
        self.worker: int | None = None
        """The worker's backend; None while there is none, and behind a pooler."""
        self._connector = connector
        self._clock = clock
        self._thresholds = thresholds
        self._session: Session | None = None
        self._first_seen: dict[int, float] = {}

    async def run(self) -> None:
        """Polls until cancelled. What fails is tried again at the next poll; the reading grows old meanwhile."""
        try:
            while True:
                await self._clock.sleep(self._thresholds.poll_s)
                await self.look()
        finally:
            self._drop()

    async def look(self) -> None:
        """Looks once. Where that fails, the reading stays what it was."""
        try:
            self.reading = await self._look()
        except (psycopg.Error, ConnectionLost, ServerSilent, CannotConnect):
            self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.sever()

    async def _look(self) -> Reading:
        if self._session is None:
            self._session = await self._connector.open(Role.MONITOR, within=5.0)
        text = query("backfill-health", self._session.server_version)
        asked = self._clock.monotonic()
        rows = await self._session.values(text, {"worker": self.worker}, within=ANSWER_S)
        waiters, replicas, holders = [], [], []
        waits: float | None = None
        seen = self._first_seen
        self._first_seen = {}
        for kind, pid, application, seconds, octets in rows:
            name = one_line(application, 64)
            if kind == "replica":
                if octets is not None:
                    replicas.append(Replica(name, seconds, octets))
                continue
            since = self._first_seen[pid] = seen.get(pid, asked)
            waited = asked - since if seconds is None else seconds
            if kind == "waiter":
                waiters.append(Waiter(pid, name, waited))
            else:
                holders.append(f"{pid} ({name or 'unnamed'})")
                waits = waited
        return Reading(asked, tuple(waiters), tuple(replicas), waits, ", ".join(holders))
