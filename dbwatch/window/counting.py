"""How much a way back would lose: rows and values, counted within bounds. The only part of a plan that reads data."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connector, Role, Session, with_limits

BOUND = 10_000
"""As many rows are counted; what is more is told as `more than`."""
WITHIN_MS = 300
"""As long a single count may take: an empty column of a huge table is not read through."""
FRESH_S = 30.0
"""So long a count that has reached its bounds is told again without counting anew. One within them is no news of what
was written since: while a backfill runs it grows by thousands a second."""


class Counter:
    """Counts what columns and tables hold; what takes long or has no end at most once in FRESH_S."""

    def __init__(self, connector: Connector, clock: Clock) -> None:
        self._connector, self._clock = connector, clock
        self._known: dict[tuple[str, str, str], tuple[float, int | None]] = {}

    async def values(self, places: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], int | None]:
        """By (schema, table, column), how many values are there; an empty column name counts rows. BOUND + 1 stands
        for more, None for what could not be counted in time.
        """
        wanted = list(dict.fromkeys(places))
        now = self._clock.monotonic()
        stale = [place for place in wanted if not self._fresh(place, now)]
        if stale:
            await self._count(stale)
        return {place: self._known[place][1] for place in wanted if place in self._known}

    def _fresh(self, place: tuple[str, str, str], now: float) -> bool:
        at, found = self._known.get(place, (0.0, 0))
        return (found is None or found > BOUND) and now < at + FRESH_S

    async def _count(self, places: Iterable[tuple[str, str, str]]) -> None:
        limits = with_limits(Role.PROBE, statement_timeout_ms=WITHIN_MS)
        session = await self._connector.open(Role.PROBE, limits=limits)
        try:
            for place in places:
                self._known[place] = (self._clock.monotonic(), await self._one(session, *place))
        finally:
            await session.close()

    async def _one(self, session: Session, schema: str, table: str, column: str) -> int | None:
        text = sql.SQL(query("count-some", 0).decode()).format(
            table=sql.Identifier(schema, table),
            condition=sql.SQL("{} IS NOT NULL").format(sql.Identifier(column)) if column else sql.SQL("true"),
            bound=BOUND + 1,
        )
        try:
            [(found,)] = await session.values(text.as_string().encode(), within=5.0)
        except (psycopg.Error, DbwatchError):
            return None
        return int(found)


def told(found: int | None) -> str:
    """`1,204 values`, `more than 10,000 values`; pure."""
    if found is None:
        return "values that could not be counted in time"
    return f"more than {BOUND:,} values" if found > BOUND else f"{found:,} value{'s' * (found != 1)}"
