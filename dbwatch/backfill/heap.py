"""How large the table is on disk while it is filled: what it grew by is the bloat that a vacuum does not give back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg

from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session

_LIMITS = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '1s'"


@dataclass(frozen=True, slots=True)
class Heap:
    """What was measured; bytes, partitions included, without TOAST and indexes."""

    began: int
    """When the run began."""
    now: int
    """The last time that it could be read."""

    @property
    def grown(self) -> int:
        """By so much; it may have shrunk, where a vacuum cut off its end."""
        return self.now - self.began

    @classmethod
    def after(cls, before: Heap | None, measured: int | None) -> Heap | None:
        """With one more measure; None tells that it could not be had: then all stays as it was."""
        if measured is None:
            return before
        return cls(measured, measured) if before is None else replace(before, now=measured)


async def measure(session: Session, relation: str, *, within: float = 2.0) -> int | None:
    """Bytes of the heap of *relation*, a quoted name; None where it is gone, or locked: it waits for 100 ms at most.

    A waiting ACCESS EXCLUSIVE is in the way as a held one is. Raises as `Session.call` does where the connection went;
    what the server refuses is nobody's trouble.
    """

    async def work(connection: Connection) -> int | None:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_LIMITS)
            text = query("backfill-heap", session.server_version)
            found = await (await connection.execute(text, {"relation": relation})).fetchone()
        return None if found is None else found[0]

    try:
        return await session.call(work, within=within)
    except psycopg.Error:  # locked, slow or forbidden: the last measure stands
        return None
