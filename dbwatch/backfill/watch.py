"""Looks at the server once a second while a backfill runs, on a connection of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from dbwatch.backfill import heap, sight
from dbwatch.backfill.heap import Heap
from dbwatch.backfill.latency import Ledger
from dbwatch.backfill.reading import SLOW_EVERY, Counts, Holder, Latency, Reading, Replica, Server, Slot, Table, Waiter
from dbwatch.backfill.sight import Sight
from dbwatch.backfill.signals import BRISK_LEAST, BRISK_POLLS, Thresholds
from dbwatch.clock import Clock
from dbwatch.errors import CannotConnect, ConnectionLost, ServerSilent
from dbwatch.journal import SCHEMA
from dbwatch.postgres.queries import OURS, query
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line

ANSWER_S = 2.0
"""How long a question may take before its connection is closed."""
GLANCE_EVERY_S = 0.04
"""Longer than a short statement takes: two moments have little in common."""

_VACUUM_PHASES = (
    "initializing", "scanning heap", "vacuuming indexes", "vacuuming heap", "cleaning up indexes", "truncating heap",
    "final cleanup",
)  # fmt: skip


class Watch:
    """Keeps the newest reading. `run` is a task of whoever made it; nothing but its cancellation ends it."""

    def __init__(
        self, connector: Connector, clock: Clock, thresholds: Thresholds, *, table: tuple[str, str] | None = None
    ) -> None:
        self.reading: Reading | None = None
        """The newest one; its age tells whether it is worth anything."""
        self.workers: tuple[int, ...] = ()
        """Our backends that fill; none while there is none, and behind a pooler."""
        self.heard: Callable[[Reading], None] = lambda _: None
        """Told of each new reading, at once."""
        self.heap: Heap | None = None
        """How large the table is on disk; None until it could be measured, and on the way back."""
        self._connector = connector
        self._clock = clock
        self._thresholds = thresholds
        self._relation = None if table is None else sql.Identifier(*table).as_string()
        self._table_name = "" if table is None else one_line(".".join(table))
        self._session: Session | None = None
        self._sight: Sight | None = None
        self._first_seen: dict[int, float] = {}
        self._looks = 0
        self._seldom: dict[str, Any] = {}
        """What is read less often: fields of the next readings."""
        self._calls = Ledger()
        self._ours: dict[int, bool] = {}

    @property
    def usual_ms(self) -> float | None:
        """What a call of the application's took when we began; None where that is not known."""
        return self._calls.usual_ms

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
            self.heard(self.reading)
            if self._looks % SLOW_EVERY == 0:  # what takes long must not make what was read at once look old
                self._seldom = await self._slowly()
                await self._measure()
            self._looks += 1
        except (psycopg.Error, ConnectionLost, ServerSilent, CannotConnect):
            self._drop()

    async def _measure(self) -> None:
        if self._session is not None and self._relation is not None:
            self.heap = Heap.after(self.heap, await heap.measure(self._session, self._relation, within=ANSWER_S))

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.sever()

    async def _look(self) -> Reading:
        if self._session is None:
            self._session = await self._connector.open(Role.MONITOR, within=5.0)
            self._sight = await sight.look(self._session, within=ANSWER_S)
        session, asked = self._session, self._clock.monotonic()
        workers = {"workers": list(self.workers)}
        questions = (("backfill-health", workers), ("backfill-health-holds", workers), ("backfill-health-server", None))
        texts = [(query(name, session.server_version), parameters) for name, parameters in questions]
        blocking, holds, [server] = await session.results(texts, within=len(texts) * ANSWER_S)
        slots, holders = _holds(holds)
        reading, found = self._blocking(blocking, asked), _server(server)
        if self._looks == 0 and found.brisk >= BRISK_LEAST:
            found = replace(found, glances=await self._glances(session))
        return replace(reading, server=found, slots=slots, holders=holders, **self._seldom)

    async def _glances(self, session: Session) -> tuple[tuple[int, int], ...]:
        """How busy others are, at some more moments: by that we begin, and of eight sessions one moment says little."""
        seen = []
        for _ in range(BRISK_POLLS - 1):
            await self._clock.sleep(GLANCE_EVERY_S)
            [row] = await self._ask(session, "backfill-health-server")
            server = _server(row)
            seen.append((server.brisk, server.busy))
        return tuple(seen)

    async def _ask(self, session: Session, name: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        return await session.values(query(name, session.server_version), parameters, within=ANSWER_S)

    def _blocking(self, rows: Sequence[tuple[Any, ...]], asked: float) -> Reading:
        waiters, replicas, holders = [], [], []
        waits: float | None = None
        seen = self._first_seen
        self._first_seen = {}
        for kind, pid, application, seconds, octets, backend_start, waits_since in rows:
            name = one_line(application, 64)
            if kind == "replica":
                if octets is not None:
                    replicas.append(Replica(name, seconds, octets))
                continue
            since = self._first_seen[pid] = seen.get(pid, asked)
            waited = asked - since if seconds is None else seconds
            if kind == "waiter":
                waiters.append(Waiter(pid, name, waited, backend_start, waits_since or since))
            else:
                holders.append(f"{pid} ({name or 'unnamed'})")
                waits = waited
        return Reading(asked, tuple(waiters), tuple(replicas), waits, ", ".join(holders))

    async def _slowly(self) -> dict[str, Any]:
        """What is read less often. A part that fails stays as it was, and grows old; the others do not care."""
        session, now = self._session, self._clock.monotonic()
        assert session is not None
        parts: list[tuple[str, str, Callable[[Session], Awaitable[Any]]]] = [("counts", "counts", self._counts)]
        if self._relation is not None:
            parts.append(("table", "table", self._table))
        if self._sight is not None and self._sight.statements is not None:
            parts.append(("calls", "latency", self._latency))
        before = self._seldom.get("slow", {})
        slow = {part: before.get(part, now) for part, _, _ in parts}
        found = dict(self._seldom)
        for part, field, ask in parts:
            try:
                found[field] = await ask(session)
            except psycopg.Error:
                continue
            slow[part] = now
        return {**found, "slow": slow}

    async def _counts(self, session: Session) -> Counts:
        [row] = await self._ask(session, "backfill-health-counts")
        return Counts(*row)

    async def _table(self, session: Session) -> Table | None:
        rows = await self._ask(session, "backfill-health-table", {"relation": self._relation})
        for live, dead, updated, hot, freeze_age, phase, blocks, scanned, cleaned in rows:
            return Table(
                self._table_name, live, dead, updated, hot, freeze_age, _vacuum(phase, blocks, scanned), cleaned
            )
        return None

    async def _latency(self, session: Session) -> Latency | None:
        """Without our own statements, which are known by their texts: marked, or about our own schema."""
        rows = await self._of_statements(session, "backfill-health-calls")
        new = [queryid for queryid, _, _ in rows if queryid not in self._ours]
        if new:
            texts = dict(await self._of_statements(session, "statement-texts", queryids=new))
            self._ours |= {queryid: _is_ours(texts.get(queryid) or "") for queryid in new}
        calls = {queryid: (times, ms) for queryid, times, ms in rows if not self._ours[queryid]}
        self._calls, found = self._calls.after(calls, learning=self._looks <= SLOW_EVERY)
        return found

    async def _of_statements(self, session: Session, name: str, **parameters: object) -> list[Any]:
        assert self._sight is not None
        assert self._sight.statements is not None
        text = query(name, session.server_version).decode()
        statement = sql.SQL(text).format(schema=sql.Identifier(self._sight.statements))
        return await session.values(statement, {"database": self._sight.database, **parameters}, within=ANSWER_S)


def _server(row: tuple[Any, ...]) -> Server:
    active, lately, brisk, busy, connections, usable, wal, max_wal_size, timeout_s, *identity = row
    system, timeline, started = map(str, identity)
    which = (system, timeline, started)
    return Server(active, lately, connections, usable, wal, max_wal_size, timeout_s, which, brisk, busy)


def _holds(rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[Slot, ...], tuple[Holder, ...]]:
    slots, holders = [], []
    for kind, foreign, status, seconds, safe, kept, xmin in rows:
        name = one_line(foreign, 80)
        if kind == "slot":
            slots.append(Slot(name, status, safe, kept))
        else:
            holders.append(Holder(f"{kind.removeprefix('held by ')} {name}", seconds, xmin))
    return tuple(slots), tuple(holders)


def _is_ours(statement: str) -> bool:
    return OURS in statement or f"{SCHEMA}." in statement


def _vacuum(phase: int | None, blocks: int | None, scanned: int | None) -> str:
    """What a VACUUM does, in the words of pg_stat_progress_vacuum; empty: there is none."""
    if phase is None:
        return ""
    share = f", {100 * (scanned or 0) / blocks:.0f} %" if blocks else ""
    return (_VACUUM_PHASES[phase] if 0 <= phase < len(_VACUUM_PHASES) else "at work") + share
